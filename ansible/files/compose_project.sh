# Phases of a run, on the host. Sent by the action plugin compose_project; for any POSIX sh on Linux.
#
# It observes and acts. What is to be done, and whether it went well, is decided by the server (runner/host/answers.py), which
# is asked over the channel that the script came by.
#
# Arguments   phases run deployment installation project limits logins delivery manifest seeds override outside [rival...]
#               limits    the seconds of each phase, separated by commas, as the phases are
#               logins    the number of logins at registries
#               delivery  the id of the package's content, "-" without Prepare
#               manifest  the bytes of the manifest; seeds: of the list of files that are only created when missing
#               override  the file that Compose reads over compose.yaml, or "-"
#               outside   "yes" if Compose may read files that are not in the package, else "no"
# Stdin       a line that is ignored; with prepare, a line for each login, "registry password user", the password as
#             `printf %b` reads it; the manifest, as sha256sum prints it; the seeds, one path a line; then the answers
# Answers     lines of "key value", and an empty line; after "size BYTES" as many bytes follow the empty line, a tar
# Stdout      NUL             heartbeat: still at work; it may stand anywhere
#             "| words"       what docker, compose or a container printed
#             "= key value"   a fact for the server; "= phase NAME" begins a phase, "= result ok" or "= result failed"
#                             ends it, and a phase that failed is the last one; "= ask NAME" asks for an answer
# Status      0 whenever a result was printed
#
# ~/.daos/projects/PROJECT/   the project directory: compose.yaml, .env and the package's other files, as containers
#                             mount them
# ~/.daos/trees/PROJECT/      the same files as they were delivered; Compose reads these, and no container can mount them
# ~/.daos/state/PROJECT/      lock       held by the phases and all that they start, as descriptor 9: pid, run, deployment
#                             run        the marker: which run was here last and how far it got
#                             owner      the deployment that deployed last, and its installation of daos
#                             delivered  the id of the package in the tree
#                             resolved   what Compose resolves the tree to; words: the warnings that it printed
#                             images     the images that the server asked about last
#                             model.json what Up brought up last: `resolved` with the paths of the project directory
#                             notes      what the server noted before Up; built: the images that were built
#                             manifest   the files in the project directory and their checksums
#                             links      what containers mount, and could have replaced by links
#                             move, delete  what a run that was cut off may not have moved and deleted, one path a line
#                             baseline   the containers before the run; ids: those after it
#                             login.PID  where docker's configuration with the run's logins at registries is while images
#                                        are pulled: a directory in /dev/shm, or this one where there is no such memory
#
#                             new/       what is to take the place of the files above, and what is only needed now
# The directory new/ is empty, and what ends with .new is gone, when the phases are over.

set -u
umask 077
export LC_ALL=C # messages that can be recognized, and lengths in bytes

phases=$1 run=$2 deployment=$3 installation=$4 project=$5 limits=$6 count=$7 delivery=$8 manifest_size=$9
shift 9
seeds_size=$1 override=${2#-} outside=$3
shift 3
rivals=" $* "

newline='
'
effect=none reason= detail= heartbeat= marked= unread= litter= prefix= looked=
ids= one_offs= stranger= logins= login_config= login_problem=
moves= to_build= to_pull= to_recreate= unavailable= services= at_work= recalled=

# Time is the host's uptime in hundredths of a second: no process to ask, no clock that jumps.
tick() {
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}
}

is_late() {
    tick
    [ "$now" -ge "$deadline" ]
}

# Sets `text` to a file's lines, each with its end. The shell reads byte by byte, and is done before a program has begun.
read_all() {
    text=
    while IFS= read -r line || [ -n "$line" ]; do
        text=$text$line$newline
    done <"$1"
}

# Runs a command for no longer than the phase may still last.
bounded() {
    tick
    left=$(((deadline - now + 99) / 100))
    [ "$left" -gt 0 ] || left=1
    timeout -k 2 "$left" "$@" 4>&- 6<&- # busybox's leaves a process behind for up to a second
}

tell() {
    printf '= %s %.2000s\n' "$1" "$2"
}

# Passes lines on with their prefix; prints whether there was more to say than that containers run already, and the last
# line. The dot at the end shows that it was not ended before.
relay() {
    last= made=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            *'Exiting with failure status'*) ;; # tar, after the words that matter
            *' Running' | *' Running ') last=$line ;;
            *[![:space:]]*) last=$line made=yes ;;
        esac
        printf '| %s%.2000s\n' "$prefix" "$line" >&4
    done
    printf '%s\n%.500s.' "$made" "$last"
}

# Sets `made` and `last` to what relay has printed. It ends when the channel is closed, and then what it served may
# have failed for that alone: the marker stays as it is, and the next one to inspect the host finds out how it went.
take_in() {
    case $1 in
        *.) ;;
        *) exit 1 ;;
    esac
    made=${1%%"$newline"*} last=${1#*"$newline"}
    last=${last%.}
    last=${last#"${last%%[![:space:]]*}"}
}

# Runs a command and relays its words. Sets `status`, `made`, and `last` to its last line.
say() {
    answer=$({ { "$@" 2>&1 3>&- 4>&-; echo "$?" >&3; } | relay 3>&-; } 3>&1)
    status=${answer%%"$newline"*}
    take_in "${answer#*"$newline"}"
}

# The same for what is silent when it goes well: its words are passed on when it has ended, and it costs one fork.
hush() {
    answer=$("$@" 2>&1 4>&-)
    status=$? made= last=
    [ -z "$answer" ] || take_in "$(printf '%s\n' "$answer" | relay)"
}

# Begins the phase that is next in `phases`.
begin_phase() {
    phase=${phases%%,*} seconds=${limits%%,*}
    case $phases in
        *,*) phases=${phases#*,} limits=${limits#*,} ;;
        *) phases= ;;
    esac
    effect=none reason= detail=
    tick
    deadline=$((now + seconds * 100))
    tell phase "$phase"
}

# Prints how the phase ended, after the rest of it has been done.
end_phase() {
    case $1,$phases in
        failed,* | *,)
            [ -z "$at_work" ] || wait $at_work
            [ -z "$litter" ] || sweep
            ;;
    esac
    case $phase,$1,$phases in
        prepare,ok,?* | build,ok,?*) ;; # Pull may need the logins too; Up pulls nothing
        *) [ -z "$login_config" ] || forget_logins "$$" ;;
    esac
    if [ -n "$marked" ]; then
        case $1,$phases in
            failed,*) mark failed ;;
            ok,) mark 'done' ;;
        esac
    fi
    [ -z "$reason" ] || tell reason "$reason"
    [ -z "$detail" ] || tell detail "$detail"
    tell effect "$effect"
    tell result "$1"
    if [ "$1" = failed ] && [ -n "$unread" ]; then
        bounded cat <&6 >/dev/null # or ssh may take the closed pipe for a lost host
    fi
}

# Removes what only a phase at work has.
sweep() {
    rm -rf "$directory.new" "$tree.new" "$state/new"/*
}

finish() {
    end_phase "$1"
    if [ -n "$heartbeat" ]; then
        kill -USR1 "$heartbeat"
        wait "$heartbeat"
        flock -u 9 # what busybox leaves behind has it too
    fi
    exit 0
}

fail() {
    reason=$1 detail=$2
    finish failed
}

fail_late() {
    case $phase in
        prepare) name=Prepare ;;
        build) name=Build ;;
        pull) name=Pull ;;
        up) name=Up ;;
        verify) name=Verify ;;
        down) name=Down ;;
        halt) name=Halt ;;
        *) name=Settle ;;
    esac
    fail TIMEOUT "$name did not finish within $seconds s."
}

# Waits for the lock, for hundredths of a second. It is waited for on descriptor 8 and signed before it gets number 9:
# whoever has the lock file as descriptor 9 belongs to the phase that signed it.
take_lock() {
    exec 8<>"$state/lock"
    tick
    patience=$((now + $1))
    [ "$patience" -lt "$deadline" ] || patience=$deadline
    until flock -n 8; do
        tick
        [ "$now" -lt "$patience" ] || return 1
        printf '\000'
        sleep 0.2
    done
    printf '%s %s %s\n' "$$" "$run" "$deployment" >&8
    exec 9>&8 8>&-
    forget_logins '*' # of runs that were killed
    watch_channel &
    heartbeat=$!
}

read_lock() {
    lock_pid= lock_run= lock_deployment=
    [ ! -f "$state/lock" ] || read -r lock_pid lock_run lock_deployment <"$state/lock"
}

# Ends the work when nobody listens any more: sshd closes the channel of a client that is gone, but kills nothing.
watch_channel() {
    exec 9>&- 7<"$state/lock" # the watch is not the work, and is known by descriptor 7
    trap '' TERM HUP INT # sent to the whole group, they would end the watch and spare the work, which has its own group
    trap : PIPE          # makes the write fail instead of ending the watch
    sleeper=
    trap 'kill -KILL $sleeper; exit' USR1
    while [ "/proc/$$/fd/9" -ef "$state/lock" ] && printf '\000'; do
        sleep 1 </dev/null >/dev/null 4>&- & # or the channel would stay open for as long, after the phase has ended
        sleeper=$!
        wait "$sleeper"
    done
    end_work "$$"
    forget_logins "$$"
} 2>/dev/null

# Ends the phase whose pid is given, and all that it has started; with a second argument its watch too.
end_work() {
    find_workers "$1"
    [ -z "$workers" ] || kill -TERM $workers 2>/dev/null
    [ -z "${2:+$watchers}" ] || kill -USR1 $watchers 2>/dev/null
    tick
    patience=$((now + 150))
    while [ -n "$workers${2:+$watchers}" ] && [ "$now" -lt $((patience + 300)) ]; do
        sleep 0.1 </dev/null >/dev/null 2>&1 4>&-
        find_workers "$1"
        tick
        [ "$now" -lt "$patience" ] || [ -z "$workers" ] || kill -KILL $workers 2>/dev/null
    done
}

# Sets `workers` to the pids of a phase and of all that it has started, `watchers` to those of its watch. The phase comes
# first: it must not see its commands end before itself. The signature is read after the search, for the next run may take
# the lock at any moment.
find_workers() {
    workers= watchers=
    for process in /proc/[0-9]*; do
        if [ "$process/fd/9" -ef "$state/lock" ]; then
            case ${process#/proc/} in
                "$1") workers="$1 $workers" ;;
                *) workers="$workers ${process#/proc/}" ;;
            esac
        fi
        [ ! "$process/fd/7" -ef "$state/lock" ] || watchers="$watchers ${process#/proc/}"
    done
    read_lock
    [ "$lock_pid" = "$1" ] || workers= watchers=
}

read_marker() {
    marker_run= marker_deployment= marker_action= marker_phase= marker_state= marker_reason= marker_detail= marker_at=0
    [ -f "$state/run" ] || return 0
    while IFS='=' read -r key value; do
        case $key in
            run | deployment | action | phase | state | reason | detail | at) eval "marker_$key=\$value" ;;
        esac
    done <"$state/run"
}

# Writes the marker of this run, which begins with it.
mark_beginning() {
    case $phase in
        down) action=DOWN ;;
        *) action=UP ;;
    esac
    tick
    printf '%s\n' "run=$run" "deployment=$deployment" "action=$action" "pid=$$" "phase=$phase" "at=$now" "state=running" \
        >"$state/new/run"
}

# Adds how far the run has got: what comes later counts. A full disk does not matter here. It can cut this off, so the
# state comes last, and a line of its own ends what was cut off before.
mark() {
    tick
    printf '%s\n' '' "phase=$phase" "reason=$reason" "detail=$detail" "at=$now" "state=$1" >>"$state/run"
} 2>/dev/null

begin() {
    marked=yes
    mark running
}

# Sets `plugin` to compose's own program, where docker looks for it: docker asks each of its plugins what it is before it
# starts one, and takes longer for that than compose for all its work. Empty where only docker can know.
find_plugin() {
    plugin=
    config=${DOCKER_CONFIG:-$HOME/.docker}
    if [ -f "$config/config.json" ]; then
        read_all "$config/config.json"
        case $text in
            *cliPluginsExtraDirs*) return ;;
        esac
    fi
    for place in "$config" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker; do
        plugin=$place/cli-plugins/docker-compose
        [ ! -x "$plugin" ] || return 0
    done
    plugin=
}

# Compose sees nothing of the login's environment: it would win over .env, and COMPOSE_FILE over the package. PWD is what
# `${PWD}` in a Compose file means: the directory that Compose reads.
compose() {
    set -- --project-name "$project" --ansi never "$@"
    [ -n "$plugin" ] || set -- compose "$@"
    bounded env -i HOME="$HOME" PATH="$PATH" PWD="$tree" \
        ${DOCKER_HOST+"DOCKER_HOST=$DOCKER_HOST"} ${DOCKER_CONTEXT+"DOCKER_CONTEXT=$DOCKER_CONTEXT"} \
        ${DOCKER_CONFIG+"DOCKER_CONFIG=$DOCKER_CONFIG"} ${login_config:+"DOCKER_CONFIG=$login_config"} \
        ${DOCKER_CERT_PATH+"DOCKER_CERT_PATH=$DOCKER_CERT_PATH"} \
        ${DOCKER_TLS_VERIFY+"DOCKER_TLS_VERIFY=$DOCKER_TLS_VERIFY"} \
        ${XDG_RUNTIME_DIR+"XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR"} ${SSH_AUTH_SOCK+"SSH_AUTH_SOCK=$SSH_AUTH_SOCK"} \
        "${plugin:-docker}" "$@"
}

# Logs in at the registries of the package, in a configuration of docker that is this run's own. False, with
# `login_problem`, when one of them refuses; the others have been logged in at then.
log_in() {
    [ -n "$logins" ] || return 0
    if [ -n "$login_config" ]; then
        [ -z "$login_problem" ]
        return
    fi
    make_login_config || fail TASK_FAILED 'The logins at registries have no place on the host. Is the disk full?'
    left_logins=$logins
    while [ -n "$left_logins" ]; do
        login=${left_logins%%"$newline"*} left_logins=${left_logins#*"$newline"}
        registry=${login%% *} login=${login#* }
        words=$(hand_over "${login%% *}" "${login#* }" "$registry" 2>&1) && continue
        say printf '%s\n' "$words"
        [ -n "$login_problem" ] || login_problem="The login at registry $registry failed: $last"
    done
    [ -z "$login_problem" ]
}

# The shell's own printf: a password is in no command line. Docker's warning about files that are not encrypted is of no
# use here, and is told only where the login fails.
hand_over() {
    printf %b "$1" | bounded env DOCKER_CONFIG="$login_config" docker login --username="$2" --password-stdin "$3"
}

# Sets `login_config` to a new copy of docker's configuration. Of what the login has set up all still works: its other
# logins, helpers, contexts and plugins. An empty helper keeps the run's logins out of a store that would outlast the run;
# where an object has a key twice, docker puts both together, and the last one wins.
make_login_config() {
    config=${DOCKER_CONFIG:-$HOME/.docker}
    # Under a name that nobody can guess: others may write there too.
    if place=$(mktemp -d "/dev/shm/daos.$project.XXXXXXXXXX"); then
        login_config=$place
        printf '%s\n' "$place" >"$state/login.$$" || return 1
    else
        login_config=$state/login.$$ place=$state/login.$$
        mkdir "$place" || return 1
    fi
    for entry in "$config"/* "$config"/.[!.]*; do
        case $entry in
            */config.json) ;;
            *) [ ! -e "$entry" ] || ln -s "$entry" "$place/" || return 1 ;;
        esac
    done
    settings=
    [ ! -f "$config/config.json" ] || settings=$(cat "$config/config.json")
    settings=${settings%"${settings##*[![:space:]]}"}
    [ -n "$settings" ] || settings='{}'
    settings=${settings%?}
    settings=${settings%"${settings##*[![:space:]]}"}
    case $settings in
        '{') ;;
        *) settings=$settings, ;;
    esac
    main=
    case $settings in
        *credsStore*) main=$(bounded docker info --format '{{.IndexServerAddress}}' 2>/dev/null) ;;
    esac
    helpers= left_logins=$logins
    while [ -n "$left_logins" ]; do
        registry=${left_logins%% *} left_logins=${left_logins#*"$newline"}
        case $main in
            *"$registry"*) helpers="$helpers\"$main\":\"\"," ;; # docker knows its main registry by another name
        esac
        helpers="$helpers\"$registry\":\"\","
    done
    printf '%s"credHelpers":{%s}}\n' "$settings" "${helpers%,}" >"$place/config.json"
} 2>/dev/null

# Removes the configurations with logins that the phase of this pid has left, or all.
forget_logins() {
    for left_config in "$state"/login.$1; do
        if [ -f "$left_config" ] && read -r place <"$left_config" && [ ! -L "$place" ] && [ -O "$place" ]; then
            rm -rf "$place" # after a restart of the host it may be somebody else's
        fi
        [ ! -e "$left_config" ] || rm -rf "$left_config"
    done 2>/dev/null
    [ -z "$login_config" ] || rm -rf "$login_config" # a full disk may have kept its name
    login_config=
}

# Runs compose on the delivered files.
compose_tree() {
    compose --project-directory "$tree" --env-file "$tree/.env" --file "$tree/compose.yaml" \
        ${override:+--file "$tree/$override"} "$@"
}

# Runs compose on what the server made of its resolution of the delivered files.
compose_model() {
    compose --project-directory "$directory" --file "$state/model.json" --env-file "$tree/.env" "$@"
}

# Asks the server, and sets `reply_*` to what it answers. Where the channel is closed instead, the phase ends as it is.
ask() {
    tell ask "$1"
    for key in size inspect build pull recreate rest services unavailable moves mode verdict wait reason detail matching \
        disk fail log; do
        eval "reply_$key="
    done
    while IFS= read -r line <&6 || exit 1; do
        [ -n "$line" ] || break
        key=${line%% *} value=${line#* }
        case $key in
            log) reply_log=$reply_log$value$newline ;;
            *) eval "reply_$key=\$value" ;;
        esac
    done
    [ -z "$reply_fail" ] || fail "$reply_fail" "$reply_detail"
}

# Unpacks the bytes that follow an answer into a directory. Containers and builds read the files as other users, and
# the directories above are closed. Where the channel was closed meanwhile, tar may have taken what came for a whole
# archive: what must not be incomplete is used only after another answer.
receive() {
    head -c "$reply_size" <&6 | (umask 022 && bounded tar -xpmof - -C "$1")
}

# Ends the phase with what the server makes of the words that were printed. Its reason and sentence, else those given.
explain() {
    tell status "$status"
    require_docker
    if is_late; then tell late yes; else tell late no; fi
    deadline=$((now + 1000)) # to find the reason
    look || give_up_looking
    tell fallback "$1 $2"
    ask why
    if [ -n "$reply_disk" ]; then
        see_disk
        ask why
    fi
    give_reason
    [ -n "$reason" ] || fail_late
    finish failed
}

# Sets `reason` and `detail` to the server's, after the logs that it wants to see.
give_reason() {
    found=$reply_reason
    show_logs
    ask sentence
    reason=$found detail=$reply_detail
}

see_disk() {
    root=$(bounded docker info --format '{{.DockerRootDir}}' 2>/dev/null)
    for place in "$root" "$HOME"; do
        [ ! -d "$place" ] || tell disk "$(bounded df -Pk "$place" 2>/dev/null | awk 'END { print $4, $NF }')"
    done
}

refuse_rivals() {
    owner= owner_installation=
    [ ! -f "$state/owner" ] || read -r owner owner_installation <"$state/owner"
    if [ -n "$owner_installation" ] && [ "$owner_installation" != "$installation" ]; then
        words="Project '$project' on this host belongs to another installation of daos (deployment $owner of installation"
        words="$words $owner_installation). Take it down there; if that installation is gone, delete $state/owner on the host."
        fail TASK_FAILED "$words"
    fi
    case $rivals in
        *" ${owner:-nobody} "*) fail TASK_FAILED "Project '$project' on this host belongs to deployment $owner." ;;
    esac
}

refuse_strangers() {
    [ -z "$stranger" ] || fail TASK_FAILED "Project '$project' on this host belongs to the directory $stranger."
}

# Sets `ids` to the containers of the project's services, `one_offs` to those of `compose run`, and `stranger` to the
# directory of another project of the same name: --remove-orphans would delete its containers. Containers without a
# hash of Compose's were not made by Compose, which leaves them alone too.
list_containers() {
    listing=$(bounded docker ps --all --no-trunc --filter "label=com.docker.compose.project=$project" --format \
        '{{.ID}}|{{.Label "com.docker.compose.config-hash"}}|{{.Label "com.docker.compose.oneoff"}}|{{.Label "com.docker.compose.project.working_dir"}}' \
        2>/dev/null) || return 1
    read_listing
}

read_listing() {
    ids= one_offs= stranger=
    while IFS='|' read -r id hash one_off place; do
        [ -n "$hash" ] || continue
        if [ "$place" != "$directory" ] && ! [ "$place" -ef "$directory" ]; then
            stranger=${place:-unknown}
            continue
        fi
        case $one_off in
            True) one_offs="$one_offs $id" ;;
            *) ids="$ids $id" ;;
        esac
    done <<LISTING
$listing
LISTING
}

# Prints a line for each of the containers of services: what they are and how they are, as of one moment.
inspect() {
    # shellcheck disable=SC2016,SC2089 # Go's templates have a `$` of their own
    facts='= container {"id":{{json .ID}},"name":{{json .Name}},"hash":{{json (index .Config.Labels "com.docker.compose.config-hash")}}'
    facts=$facts',"service":{{json (index .Config.Labels "com.docker.compose.service")}},"image":{{json .Config.Image}}'
    facts=$facts',"imageId":{{json .Image}},"state":{{json .State.Status}},"exitCode":{{.State.ExitCode}}'
    facts=$facts',"oomKilled":{{.State.OOMKilled}},"restarts":{{.RestartCount}},"startedAt":{{json .State.StartedAt}}'
    facts=$facts',"finishedAt":{{json .State.FinishedAt}},"policy":{{json .HostConfig.RestartPolicy.Name}}'
    facts=$facts',"maxRetries":{{.HostConfig.RestartPolicy.MaximumRetryCount}},"health":{{with .State.Health}}'
    facts=$facts'{{$at := "\"\""}}{{$words := ""}}{{$code := 0}}'
    facts=$facts'{{range .Log}}{{$at = json .Start}}{{$words = .Output}}{{$code = .ExitCode}}{{end}}'
    facts=$facts'{"status":{{json .Status}},"failingStreak":{{.FailingStreak}},"checkedAt":{{$at}}'
    facts=$facts',"output":{{json (printf "%.500s" $words)}},"exitCode":{{$code}}}{{else}}null{{end}}'
    facts=$facts',"healthcheck":{{with .Config.Healthcheck}}{"interval":{{json .Interval}},"timeout":{{json .Timeout}}'
    facts=$facts',"retries":{{.Retries}},"startPeriod":{{json .StartPeriod}}}{{else}}null{{end}}'
    facts=$facts',"ports":[{{range $port, $all := .NetworkSettings.Ports}}{{range $all}}'
    facts=$facts'{{json (printf "%s:%s->%s" .HostIP .HostPort $port)}},{{end}}{{end}}""]}'
    bounded docker inspect --type container --format "$facts" $ids 2>/dev/null
}

# Prints the project's containers. Known ids are asked for first: most looks come one after the other.
look() {
    echo '= containers'
    [ -z "$ids" ] || ! inspect || return 0
    list_containers || return 1
    echo '= containers'
    [ -z "$ids" ] || inspect
}

give_up_looking() {
    require_docker
    ! is_late || fail_late
    fail TASK_FAILED "Docker did not list the containers of project '$project'."
}

show_logs() {
    while read -r id name; do
        [ -n "$id" ] || continue
        prefix="$name | "
        say bounded docker logs --tail 20 "$id"
        prefix=
    done <<TROUBLED
$reply_log
TROUBLED
}

require_docker() {
    if ! bounded docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
        say bounded docker version --format '{{.Server.Version}}'
        fail DOCKER_UNAVAILABLE "${last:-The docker daemon does not answer.}"
    fi
    [ -n "$plugin" ] || bounded docker compose version >/dev/null 2>&1 ||
        fail DOCKER_UNAVAILABLE 'Docker compose v2 was not found.'
}

# Prints the names of images, the ids of those that are there, in their order, and which are not.
see_images() {
    echo "= names $*"
    [ "$#" -gt 0 ] || return 0
    { absent=$(bounded docker image inspect --format '= image {{.ID}}' "$@" 2>&1 >&5); } 5>&1
    [ -z "$absent" ] || while IFS= read -r line; do
        tell absent "$line"
    done <<ABSENT
$absent
ABSENT
}

# Writes down the list of the project's containers. Only printf notices a full disk.
note_listing() {
    list_containers && printf '%s\n' "$listing" >"$state/new/listing"
}

# Writes down the project's containers before the run.
note_baseline() {
    text=
    [ -z "$ids" ] || text=$(inspect) || return 1
    printf '%s\n' '= baseline' "$text" >"$state/new/baseline"
}

# Prints the versions of Docker and Compose. They are asked for again when a program has been replaced: to ask each time
# would take longer than all the rest of a run that changes nothing.
see_versions() {
    programs=$(stat -c '%n %i %Y %s' "$(command -v docker)" $(command -v dockerd) ${plugin:+"$plugin"})
    programs="${DOCKER_HOST:-} ${DOCKER_CONTEXT:-} $programs"
    known=$HOME/.daos/versions
    if [ -f "$known" ] && read_all "$known" && [ "${text#*"$newline= "}" != "$text" ]; then
        asked=${text%%"$newline= "*}
        if [ "$asked" = "$programs" ]; then
            printf '= %s' "${text#*"$newline= "}"
            return
        fi
    fi
    reports=$(ask_versions)
    printf '%s\n' "$reports"
    case $reports in
        *'= docker '[0-9]*'= compose '[v0-9]*) printf '%s\n' "$programs" "$reports" >"$known.$$" && mv -f "$known.$$" "$known" ;;
    esac
}

ask_versions() {
    tell docker "$(bounded docker version --format '{{.Server.Version}}')"
    if [ -n "$plugin" ]; then
        tell compose "$(bounded "$plugin" version --short)"
    else
        tell compose "$(bounded docker compose version --short)"
    fi
}

# Prints which files are not as the manifest has them, which were modified since the last run, and which are missing of
# those that are only created then.
compare_files() {
    if [ ! -d "$directory" ]; then
        echo '= changed *'
        return 0
    fi
    differs=
    refuse_links "$state/new/manifest"
    if ! changes=$(check_sums "$state/new/manifest"); then
        tell_failed changed "$changes" || return 1
        differs=yes
    fi
    if [ -f "$state/manifest" ] && [ "$differs$delivered" != "$delivery" ]; then
        refuse_links "$state/manifest"
        changes=$(check_sums "$state/manifest") || tell_failed modified "$changes"
    fi
    [ "$seeds_size" -eq 0 ] || while IFS= read -r path; do
        [ -e "$directory/$path" ] || tell missing "$path"
    done <"$state/new/seeds"
}

# A container may put a pipe in the place of a file at any moment, or a link to what has no end.
check_sums() {
    cd "$directory" && bounded sha256sum -c "$1" 2>/dev/null
}

# Ends the phase where a container has left something else in the place of a file of a manifest.
refuse_links() {
    known= link= place=
    set -f
    IFS=$newline
    for path in $(sed 's/^[^ ]*  //' "$1"); do
        place=$directory/${path#./}
        if [ "${place%/*}" = "$known" ]; then
            [ ! -L "$place" ] || link=$place
        else
            known=${place%/*}
            find_link "${path#./}"
        fi
        [ -z "$link" ] || break
        [ ! -e "$place" ] || [ -f "$place" ] || [ -d "$place" ] || break
        place=
    done
    unset IFS
    set +f
    [ -z "$link" ] || place="$link is a symbolic link, which daos does not follow"
    [ -n "$link" ] || place=${place:+"$place is not a regular file"}
    [ -z "$place" ] || fail TASK_FAILED "No file was replaced: $place. Remove it on the host."
}

# Sets `link` to the first part of a path in the project directory that is a symbolic link.
find_link() {
    part=$directory left=$1/ link=
    while [ -n "$left" ]; do
        part=$part/${left%%/*} left=${left#*/}
        [ ! -L "$part" ] || { link=$part && return; }
    done
}

# Prints the paths that sha256sum has not found as they should be. False where it gave no answer.
tell_failed() {
    any=
    while IFS= read -r line; do
        case $line in
            *': FAILED' | *': FAILED open or read')
                any=yes path=${line%': FAILED'*}
                [ "$1" = changed ] || [ ! -e "$directory/$path" ] || tell "$1" "$path"
                [ "$1" = modified ] || tell "$1" "$path"
                ;;
        esac
    done <<FAILED
$2
FAILED
    [ -n "$any" ]
}

# Replaces the tree by the package that the server sends.
renew_tree() {
    rm -rf "$state/delivered" "$state/resolved" "$tree.new" && mkdir "$tree.new" && receive "$tree.new" && rm -rf "$tree" &&
        mv "$tree.new" "$tree"
}

# Has Compose resolve the tree: this is where it refuses files that it cannot use.
resolve() {
    compose_tree config --format json >"$state/new/json" 2>"$state/words" || return 1
    { printf '= model ' && tr -d '\n' <"$state/new/json" && echo; } >"$state/new/resolved" &&
        mv -f "$state/new/resolved" "$state/"
}

# What docker and compose are asked goes on side by side: each question is a program that takes longer than all the rest.
# Nothing of the project is changed: a run that fails here, in Build or in Pull leaves its files and containers alone.
prepare() {
    refuse_rivals
    litter=yes delivered= words= inspecting= looking=
    set -- "$state/new"/*
    [ ! -e "$1" ] || rm -rf "$@" # of a run that was cut off
    note_listing 2>/dev/null &
    seeing=$!
    if [ -s "$state/ids" ]; then
        read_all "$state/ids"
        ids=${text%"$newline"}
        note_baseline 2>/dev/null &
        inspecting=$! recalled=$ids
    fi
    see_versions >"$state/new/versions" 2>/dev/null &
    asking=$!
    if [ -f "$state/images" ]; then
        # Most often they are the ones that the server will ask about.
        read_all "$state/images"
        see_images $text >"$state/new/found" 2>/dev/null &
        looking=$!
    fi
    [ ! -f "$state/delivered" ] || read -r delivered <"$state/delivered"
    hush receive_lists
    [ "$status" -eq 0 ] || words="The list of files could not be written: $last"
    if [ -z "$words" ] && { [ "$delivered" != "$delivery" ] || [ ! -d "$tree" ]; }; then
        ask archive
        unread=yes delivered=
        hush renew_tree
        if [ "$status" -eq 0 ]; then unread=; else words="The files could not be unpacked: $last"; fi
        [ "$status" -eq 0 ] || rm -rf "$tree.new" # it may be what the disk is full of
    fi
    if [ -z "$words" ] && { [ "$outside" = yes ] || [ ! -f "$state/resolved" ]; }; then
        resolve &
        at_work=$!
    fi
    if wait "$seeing" && [ -f "$state/new/listing" ]; then
        read_all "$state/new/listing"
        listing=$text
    else
        listing= # a full disk is no reason to blame Docker
        [ -n "$words" ] || list_containers || give_up_looking
    fi
    read_listing
    refuse_strangers
    if [ -z "$inspecting" ] || ! wait "$inspecting" || [ "$ids" != "$recalled" ]; then
        [ -n "$words" ] || note_baseline || words="The containers could not be noted in $state."
    fi
    if [ -z "$words" ]; then
        hush remember_beginning
        if [ "$status" -eq 0 ]; then marked=yes; else words="The run could not be noted in $state: $last"; fi
    fi
    [ -z "$words" ] || explain TASK_FAILED "$words"
    tell tree "$tree"
    tell directory "$directory"
    compare_files || explain TASK_FAILED 'The files could not be compared with those on the host.'
    [ -f "$state/notes" ] || [ ! -f "$state/manifest" ] || sed 's/^[^ ]*  /= had /' "$state/manifest"
    [ ! -s "$state/move" ] || sed 's/^/= changed /' "$state/move"
    [ ! -s "$state/delete" ] || sed 's/^/= had /' "$state/delete"
    wait "$asking"
    set -- "$state/new/versions" "$state/baseline"
    [ -z "$looking" ] || ! wait "$looking" || set -- "$@" "$state/new/found"
    [ -z "$at_work" ] || wait "$at_work" || refused=yes
    at_work=
    [ ! -s "$state/words" ] || say cat "$state/words"
    if [ -n "${refused-}" ]; then
        rm -f "$state/resolved"
        cat "$@"
        status=1
        explain COMPOSE_INVALID "$last"
    fi
    for fact in notes built resolved; do
        [ ! -f "$state/$fact" ] || set -- "$@" "$state/$fact"
    done
    cat "$@"
    ask plan
    [ "$delivered" = "$delivery" ] || printf '%s\n' "$delivery" >"$state/delivered" # it is complete, see receive
    while [ -n "$reply_inspect" ]; do
        echo "$reply_inspect" >"$state/images"
        see_images $reply_inspect
        ask plan
    done
    to_build=$reply_build to_pull=$reply_pull to_recreate=$reply_recreate rest=$reply_rest services=$reply_services
    unavailable=$reply_unavailable moves=$reply_moves env_mode=$reply_mode
    if [ -n "$reply_size" ]; then
        unread=yes
        hush receive "$state/new"
        [ "$status" -eq 0 ] || explain TASK_FAILED "The notes of the run could not be written: $last"
        unread=
    fi
}

# One head for both: busybox's reads on beyond the bytes that it was asked for.
receive_lists() {
    if [ "$seeds_size" -eq 0 ]; then
        head -c "$manifest_size" <&6 >"$state/new/manifest"
        return
    fi
    head -c "$((manifest_size + seeds_size))" <&6 >"$state/new/lists" &&
        head -c "$manifest_size" "$state/new/lists" >"$state/new/manifest" &&
        tail -c "$seeds_size" "$state/new/lists" >"$state/new/seeds"
}

remember_beginning() {
    mark_beginning && printf '%s %s\n' "$deployment" "$installation" >"$state/owner" &&
        mv -f "$state/new/run" "$state/new/baseline" "$state/"
}

build() {
    begin
    [ -n "$to_build" ] || return 0
    # Nobody knows before which registries the build needs, and it says itself what it could not pull.
    log_in || printf '| %s\n' "$login_problem"
    say compose_tree build -- $to_build
    [ "$status" -eq 0 ] || explain IMAGE_BUILD_FAILED "$last"
    effect=changed
    see_images $(cat "$state/images")
    ask built
    hush keep_built
    [ "$status" -eq 0 ] || explain TASK_FAILED "What was built could not be noted: $last"
}

keep_built() {
    receive "$state/new" && mv -f "$state/new/built" "$state/"
}

pull() {
    begin
    if [ -n "$unavailable" ]; then
        status=1
        explain IMAGE_PULL_FAILED 'Its pull_policy forbids to pull it.'
    fi
    [ -n "$to_pull" ] || return 0
    if ! log_in; then
        status=1
        tell exact yes # docker's words on a login would be taken for a pull's
        explain IMAGE_PULL_FAILED "$login_problem"
    fi
    say compose_tree pull -- $to_pull
    [ "$status" -eq 0 ] || explain IMAGE_PULL_FAILED "$last"
    effect=changed
}

up() {
    if [ -n "$moves" ]; then
        check_files
        [ ! -s "$state/new/move" ] && [ ! -s "$state/new/delete" ] || effect=changed # else only the notes are new
        hush move_files
        [ "$status" -eq 0 ] || explain TASK_FAILED "The files could not be moved into the project: $last"
    fi
    begin
    refuse_exchanged
    status=0 made=
    if [ "$services" -eq 0 ]; then
        say compose down --remove-orphans # compose refuses to go up without a service
    else
        # A service that Compose would keep comes first, with what it depends on; most often, that is all.
        [ -z "$to_recreate" ] || say compose_model up --detach --no-build --remove-orphans --force-recreate -- $to_recreate
        [ "$status" -ne 0 ] || [ -z "$rest" ] || say compose_model up --detach --no-build --remove-orphans
    fi
    [ "$status" -eq 0 ] || explain TASK_FAILED "$last"
    [ -z "$made$to_recreate" ] || ids= # there may be others now
    look || give_up_looking
    looked=yes
    [ "$ids" = "$recalled" ] || printf '%s\n' "$ids" >"$state/ids" # a full disk does not matter here
}

# Ends the phase where a container has made a link of what another one is about to mount: Docker would follow it.
refuse_exchanged() {
    [ -f "$state/links" ] || return 0
    while IFS= read -r path; do
        find_link "${path#./}"
        [ -z "$link" ] ||
            fail TASK_FAILED "No container was changed: $link is a symbolic link that a container could have made. Remove it on the host, or mount its target."
    done <"$state/links"
}

# Fails unless each file can be put in its place: either all are moved, or none. A link that a container has left there
# would lead out of the project.
check_files() {
    problem=
    deleted=$newline
    [ ! -s "$state/new/delete" ] || deleted=$newline$(cat "$state/new/delete")$newline
    while IFS= read -r path; do
        if [ -n "$path" ] && ! check_file "$path"; then break; fi
    done <<PATHS
$deleted$(cat "$state/new/move")
PATHS
    [ -z "$problem" ] || fail TASK_FAILED "No file was replaced: $problem."
}

check_file() {
    place=$directory left=${1#./}
    while :; do
        [ ! -d "$place" ] || [ -w "$place" ] || break
        place=$place/${left%%/*}
        if [ -L "$place" ]; then
            problem="$place is a symbolic link, which daos does not follow. Remove it on the host"
            return 1
        fi
        case $left in
            */*) left=${left#*/} ;;
            *)
                [ ! -d "$place" ] || is_vacant "$place" && return
                problem="$place is a directory with files in it. Remove or rename it on the host"
                return 1
                ;;
        esac
        case $deleted in
            *"$newline./${place#"$directory/"}$newline"*) ;;
            *)
                if [ -e "$place" ] && [ ! -d "$place" ]; then
                    problem="$place is a file where the package has a directory. Remove or rename it on the host"
                    return 1
                fi
                ;;
        esac
    done
    problem="the directory $place belongs to user $(stat -c %U "$place"), and daos cannot write to it. If a container"
    problem="$problem has taken it, give it back on the host (chown), or leave the files in it out of the package"
    return 1
}

# Whether a directory has no files, or none that stay. Where a file to be mounted was missing, Docker has made one.
is_vacant() {
    find "$1" ! -type d | while IFS= read -r file; do
        case $deleted in
            *"$newline./${file#"$directory/"}$newline"*) ;;
            *) exit 1 ;;
        esac
    done
}

# Replaces the package's files in the project, each by a rename: whoever reads a file gets the old one or the new one.
# The notes come first, and the lists of what they take for done: what is known is right wherever this is cut off. As the
# last of their archive they also show that it is whole.
move_files() {
    [ -f "$state/new/notes" ] && (cd "$state/new" && mv -f delete links move model.json notes ..) || return 1
    # A container may have it mounted as a whole; only .env is nobody else's business.
    [ -d "$directory" ] || mkdir -m 755 "$directory" || return 1
    while IFS= read -r path; do
        [ -z "$path" ] || [ ! -e "$directory/$path" ] || (enter "${path%/*}" && rm -f "./${path##*/}") || return 1
    done <"$state/delete"
    if [ -s "$state/move" ]; then
        [ ! -e "$directory.new" ] || rm -rf "$directory.new" || return 1
        cp -Rp "$tree" "$directory.new" || return 1
        [ ! -f "$directory.new/.env" ] || chmod "$env_mode" "$directory.new/.env" || return 1
        move_listed || return 1
    fi
    # Also of one that stays: it is readable for containers that mount it, and for nobody else.
    if [ -n "$(find "$directory/.env" -prune \( ! -type f -o ! -perm "$env_mode" \))" ]; then
        mkdir -p "$directory.new" && cp -p "$tree/.env" "$directory.new/" && chmod "$env_mode" "$directory.new/.env" &&
            move_into . "$directory.new/.env" || return 1
    fi
    mv -f "$state/new/manifest" "$state/" && : >"$state/move" && : >"$state/delete"
}

# Moves files of one directory by one program: a program for each would take longer than all the rest.
move_listed() {
    parent=
    set --
    while IFS= read -r path; do
        [ -n "$path" ] || continue
        if [ "$parent" != "${path%/*}" ]; then
            move_into "$parent" "$@" || return 1
            parent=${path%/*}
            set --
        fi
        set -- "$@" "$directory.new/$path"
    done <"$state/move"
    move_into "$parent" "$@"
}

# Moves files into a directory of the project, which is made if need be.
move_into() (
    [ "$#" -gt 1 ] || return 0
    enter "$1" || return 1
    shift
    for file in "$@"; do
        name=./${file##*/}
        [ ! -d "$name" ] || [ -L "$name" ] || find "$name" -depth -type d -exec rmdir {} + || return 1
    done
    mv -f "$@" ./
)

# Goes into a directory of the project and makes what is missing of it. Each step begins where the one before has led, and
# none goes through a link: whatever a container exchanges meanwhile, the shell stays inside.
enter() {
    cd -P "$directory" || return 1
    here=$PWD left=$1/
    while [ -n "$left" ]; do
        step=${left%%/*} left=${left#*/}
        [ "$step" != . ] || continue
        [ -d "./$step" ] || mkdir -m 755 "./$step" || return 1
        cd -P "./$step" || return 1
        if [ "$PWD" != "$here/$step" ]; then
            echo "$here/$step is a symbolic link, which daos does not follow" >&2
            return 1
        fi
        here=$PWD
    done
}

verify() {
    begin
    sweep &
    at_work=$! litter=
    if ! wait_until_well; then
        finish failed
    fi
}

# Has the server judge the containers until it has decided. False, with `reason` and `detail`, where they are not well.
wait_until_well() {
    tell time "$(date -u +%Y-%m-%dT%H:%M:%S)" # how long a container has been steady that was restarted before
    while :; do
        if [ -z "$looked" ]; then
            tick
            deadline=$((now + 3000)) # of this look; the server decides when the time is up
            look || give_up_looking
        fi
        looked=
        ask verdict
        case $reply_verdict in
            ok) return 0 ;;
            wait) sleep "$reply_wait" ;;
            *)
                give_reason
                return 1
                ;;
        esac
    done
}

down() {
    refuse_rivals
    list_containers || give_up_looking
    refuse_strangers
    ! { mark_beginning && mv -f "$state/new/run" "$state/"; } 2>/dev/null || marked=yes # a full disk does not matter here
    [ -z "$ids$one_offs" ] || effect=changed
    status=1
    [ ! -f "$state/model.json" ] || say compose_model down --remove-orphans
    list_containers || give_up_looking
    if [ "$status" -ne 0 ] || [ -n "$ids$one_offs" ]; then
        say compose down --remove-orphans # by the labels of what is there
        list_containers || give_up_looking
    fi
    if [ -n "$ids$one_offs" ]; then
        status=1
        explain TASK_FAILED "${last:-"Containers of project '$project' are left."}"
    fi
    rm -f "$state/owner" "$state/baseline"
}

# Ends what a run has left at work, and prints how far it had come and what is there. Changes nothing else.
halt() {
    busy=false verdict=
    read_lock
    [ "$lock_deployment" != "$deployment" ] || end_work "$lock_pid" watch
    if [ -d "$state" ]; then
        if take_lock $((seconds * 50)); then
            sweep
        else
            busy=true
        fi
    fi
    read_marker
    tell busy "$busy"
    for key in run deployment action phase state reason detail; do
        eval "value=\$marker_$key"
        [ -z "$value" ] || tell marker "$key=$value"
    done
    look || give_up_looking
}

# As `halt`, and finds out what the run would have ended with.
settle() {
    halt
    [ "$busy$marker_run" != "false$run" ] || reach_verdict
    [ -z "$verdict" ] || tell verdict "$verdict"
}

# Has the server compare what is there with what the run was to bring up. False where that is not so.
is_applied() {
    [ -z "$stranger" ] && [ -f "$state/model.json" ] || return 1
    hashes=$(compose_model config --hash '*' 2>/dev/null) || return 1
    tell tree "$tree"
    tell directory "$directory"
    echo '= baseline'
    set --
    for fact in notes baseline; do
        [ ! -f "$state/$fact" ] || set -- "$@" "$state/$fact"
    done
    [ "$#" -eq 0 ] || cat "$@"
    printf '= model %s\n' "$(cat "$state/model.json")"
    while read -r name hash; do
        [ -z "$name" ] || tell hash "$name $hash"
    done <<HASHES
$hashes
HASHES
    ids=
    look || give_up_looking
    ask recovery
    while [ -n "$reply_inspect" ]; do
        see_images $reply_inspect
        ask recovery
    done
    [ "$reply_matching" = yes ]
}

# Sets `verdict` on the run that the marker tells of. None when the host cannot know, because the work was not done.
reach_verdict() {
    case $marker_action,$marker_phase,$marker_state in
        *,failed) verdict=failed reason=$marker_reason detail=$marker_detail ;;
        DOWN,*) [ -n "$ids$one_offs" ] || verdict=ok ;;
        UP,up,* | UP,verify,*)
            litter=yes
            tick
            case $marker_phase,$marker_state in
                up,done | verify,*) [ "$marker_at" -gt "$now" ] || tell since $((now - marker_at)) ;; # later: a restart
            esac
            is_applied || return 0
            looked=yes verdict=ok
            wait_until_well || verdict=failed
            # Still undecided when the time is up: nobody can say yet whether they will be well.
            [ "$reason" != TIMEOUT ] || verdict= reason= detail=
            ;;
    esac
}

derive_home() {
    user=$(id -un)
    case $user in
        '' | *[!A-Za-z0-9._-]*) HOME= ;;
        *) eval "HOME=~$user" ;;
    esac
    export HOME
}

require_tool() {
    command -v "$1" >/dev/null || fail TASK_FAILED "The program $1 is missing on the host (Debian package $2)."
}

# The channel is kept from everything that is started, or it would read the answers.
exec 4>&1 6<&0 </dev/null
printf '\000'
begin_phase
IFS= read -r line <&6
while [ "$count" -gt 0 ]; do
    IFS= read -r login <&6
    logins=$logins$login$newline count=$((count - 1))
done
[ -n "${HOME:-}" ] || derive_home # LOCAL, started by systemd
[ -d "$HOME" ] || fail TASK_FAILED 'The user has no home directory on the host.'
directory=$HOME/.daos/projects/$project
tree=$HOME/.daos/trees/$project # as deep as the project directory: a path that leads out of one leads out of both
state=$HOME/.daos/state/$project
cd /

command -v docker >/dev/null || fail DOCKER_UNAVAILABLE 'Docker was not found on the host.'
require_tool flock util-linux
require_tool timeout coreutils
require_tool tar tar
require_tool sha256sum coreutils
find_plugin

if [ "$phase" != settle ] && [ "$phase" != halt ]; then
    if [ ! -d "$state/new" ] || [ ! -d "${tree%/*}" ]; then
        hush mkdir -p "$state/new" "${tree%/*}" "${directory%/*}"
        [ "$status" -eq 0 ] || fail TASK_FAILED "$last"
    fi
    if ! take_lock 1500; then
        read_lock
        fail TASK_FAILED "Run $lock_run is still at work on project '$project' on this host."
    fi
fi
"$phase"
while [ -n "$phases" ]; do
    end_phase ok
    begin_phase
    "$phase"
done
finish ok
