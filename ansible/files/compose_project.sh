# Phases of a run, on the host. Sent by the action plugin compose_project; for any POSIX sh on Linux.
#
# Arguments   phases run deployment project seconds settle logins [rival...]
#                                                                           phases and their seconds with commas between,
#                                                                           settle in hundredths of a second
# Stdin       with prepare, as many lines as there are logins, "registry password user", the password as `printf %b`
#             reads it; then the manifest, as sha256sum writes it, and an empty line; then an uncompressed tar of the
#             project's files
# Stdout      ". "            still at work
#             "| words"       what docker, compose or a container said
#             "= key value"   a fact for the server; "= phase NAME" begins a phase, "= result ok" or "= result failed"
#                             ends it, and a phase that failed is the last one
# Status      0 whenever a result was told
#
# ~/.daos/projects/PROJECT/   compose's project directory: compose.yaml, .env and the package's other files
# ~/.daos/state/PROJECT/      lock      held by the phases and all that they start, as descriptor 9: pid, run, deployment
#                             run       the marker: which run was here last and how far it got
#                             owner     the deployment that deployed last
#                             manifest  the package's files and their checksums
#                             images    the images of the project's services
#                             baseline  the containers before the run: id, start, restarts, state
#                             seen      what docker had when the files arrived: two lists of containers
#                             recreate  exists when files have changed that compose does not look into
# /dev/shm/daos.PROJECT.PID/  docker's configuration with the run's logins at registries, while images are pulled, or
#                             ~/.daos/state/PROJECT/login.PID where there is no such memory
#
# What ends with .new is to take the place of what does not, and is gone when the phase is over.

set -u
umask 077
export LC_ALL=C # words that can be told apart, and lengths in bytes

phases=$1 run=$2 deployment=$3 project=$4 limits=$5 settle=$6 count=$7
shift 7
rivals=" $* "

newline='
'
changed=false reason= detail= heartbeat= marked= received= fresh= prefix= up_at= looked= has_images=
ids= containers= baseline= stranger= logins= login_config=

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
    timeout -k 2 "$left" "$@" 4>&- # busybox's leaves a process behind for up to a second
}

tell() {
    printf '= %s %.2000s\n' "$1" "$2"
}

# Passes words on with their prefix; prints whether compose told of new containers, and the last line. A longer line is
# cut: beyond PIPE_BUF a write can be torn by a heartbeat, and the rest of the words would stand at the start of a line.
# The dot at the end tells that it was not ended before.
relay() {
    last= made=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            *' Downloading '* | *' Extracting '*) continue ;; # one line for each step of a progress bar
            *'Exiting with failure status'*) ;; # tar, after the words that matter
            *' Created' | *' Recreated') last=$line made=yes ;;
            *[![:space:]]*) last=$line ;;
        esac
        printf '| %s%.2000s\n' "$prefix" "$line" >&4
    done
    printf '%s\n%.500s.' "$made" "$last"
}

# Sets `made` and `last` to what relay has printed. It ends when nobody listens any more, and then what it served may
# have failed for that alone: the marker stays as it is, and whoever asks next finds out how it went.
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
    changed=false reason= detail=
    tick
    deadline=$((now + seconds * 100))
    [ "$phase" = prepare ] || exec </dev/null
    tell phase "$phase"
}

# Tells how the phase ended, after what is left of it to be done.
end_phase() {
    if [ "$phase" = prepare ] && [ -z "$received" ]; then
        bounded cat >/dev/null # or ssh may take the closed pipe for a lost host
    fi
    [ -z "$fresh" ] || rm -rf "$fresh" "$state"/*.new
    fresh=
    case $phase,$1,$phases in
        pull,ok,?*) ;; # up may pull too
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
    tell changed "$changed"
    tell result "$1"
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
        printf '. \n'
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
    while [ "/proc/$$/fd/9" -ef "$state/lock" ] && printf '. \n'; do
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

# Begins the marker of this run.
mark_beginning() {
    case $phase in
        down) action=DOWN ;;
        *) action=UP ;;
    esac
    tick
    printf '%s\n' "run=$run" "deployment=$deployment" "action=$action" "pid=$$" "phase=$phase" "at=$now" "state=running" \
        >"$state/run.new" && mv -f "$state/run.new" "$state/run"
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

# Every phase after the first belongs to a run that is still the last one to have begun.
continue_run() {
    if [ -n "$marked" ]; then
        begin
        return
    fi
    read_marker
    [ -n "$marker_run" ] || fail TASK_FAILED "The host knows nothing of this run; it has to begin with Prepare."
    [ "$marker_run" = "$run" ] || fail TASK_FAILED "Another run has begun since: $marker_run."
    begin
}

refuse_strangers() {
    owner=
    [ ! -f "$state/owner" ] || read -r owner <"$state/owner"
    case $rivals in
        *" ${owner:-nobody} "*) fail TASK_FAILED "Project '$project' on this host belongs to deployment $owner." ;;
    esac
    [ -z "$stranger" ] || fail TASK_FAILED "Project '$project' on this host belongs to the directory $stranger."
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

# Compose sees nothing of the login's environment: it would win over .env, and COMPOSE_FILE over the package.
compose() {
    set -- --project-name "$project" --ansi never "$@"
    [ -n "$plugin" ] || set -- compose "$@"
    bounded env -i HOME="$HOME" PATH="$PATH" \
        ${DOCKER_HOST+"DOCKER_HOST=$DOCKER_HOST"} ${DOCKER_CONTEXT+"DOCKER_CONTEXT=$DOCKER_CONTEXT"} \
        ${DOCKER_CONFIG+"DOCKER_CONFIG=$DOCKER_CONFIG"} ${login_config:+"DOCKER_CONFIG=$login_config"} \
        ${DOCKER_CERT_PATH+"DOCKER_CERT_PATH=$DOCKER_CERT_PATH"} \
        ${DOCKER_TLS_VERIFY+"DOCKER_TLS_VERIFY=$DOCKER_TLS_VERIFY"} \
        ${XDG_RUNTIME_DIR+"XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR"} ${SSH_AUTH_SOCK+"SSH_AUTH_SOCK=$SSH_AUTH_SOCK"} \
        "${plugin:-docker}" "$@"
}

# Logs in at the registries of the package, in a configuration of docker that is this run's own. False, with
# `login_problem`, when one of them refuses.
log_in() {
    [ -n "$logins" ] || return 0
    [ -z "$login_config" ] || return 0
    make_login_config || fail TASK_FAILED 'The logins at registries have no place on the host. Is the disk full?'
    left_logins=$logins
    while [ -n "$left_logins" ]; do
        login=${left_logins%%"$newline"*} left_logins=${left_logins#*"$newline"}
        registry=${login%% *} login=${login#* }
        words=$(hand_over "${login%% *}" "${login#* }" "$registry" 2>&1) && continue
        say printf '%s\n' "$words"
        login_problem="The login at registry $registry failed: $last"
        return 1
    done
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
    config=${DOCKER_CONFIG:-$HOME/.docker} place=/dev/shm/daos.$project.$$
    mkdir "$place" 2>/dev/null || { place=$state/login.$$ && mkdir "$place"; } || return 1
    login_config=$place
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
    for left_config in /dev/shm/daos."$project".$1 "$state"/login.$1; do
        [ ! -d "$left_config" ] || rm -rf "$left_config"
    done 2>/dev/null
    login_config=
}

# Whether compose may pull or build although all images are there.
may_pull() {
    case $(cat "$directory/compose.yaml") in
        *pull_policy* | *build*) ;;
        *) return 1 ;;
    esac
}

compose_in() {
    place=$1
    shift
    env_file=
    [ ! -f "$place/.env" ] || env_file=$place/.env
    compose --project-directory "$place" --file "$place/compose.yaml" ${env_file:+--env-file "$env_file"} "$@"
}

# Sets `listing` to all containers of the project, `ids` to those of its services (not of `compose run`), and
# `stranger` to the directory of another project of the same name: --remove-orphans would delete its containers.
list_containers() {
    listing=$(bounded docker ps --all --no-trunc --filter "label=com.docker.compose.project=$project" --format \
        '{{.ID}}|{{.Label "com.docker.compose.oneoff"}}|{{.Label "com.docker.compose.project.working_dir"}}' \
        2>/dev/null) || return 1
    read_listing
}

read_listing() {
    ids= stranger=
    while IFS='|' read -r id one_off place; do
        [ -n "$id" ] || continue
        [ "$one_off" = True ] || ids="$ids $id"
        [ "$place" = "$directory" ] || [ "$place" -ef "$directory" ] || stranger=${place:-unknown}
    done <<LISTING
$listing
LISTING
}

inspect() {
    containers=$(bounded docker inspect --type container --format "$1" $ids 2>/dev/null)
}

# Sets `containers`, one line each. Known ids are asked for first: most looks come one after the other.
look() {
    facts='{{.ID}} {{.State.StartedAt}} {{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}'
    facts=$facts' {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}'
    facts=$facts' {{or .HostConfig.RestartPolicy.Name "no"}}'
    facts=$facts' {{or (urlquery (index .Config.Labels "com.docker.compose.config-hash")) "none"}}'
    facts=$facts' {"name":{{json (index .Config.Labels "com.docker.compose.service")}}'
    facts=$facts',"image":{{json .Config.Image}},"state":{{json .State.Status}}'
    facts=$facts',"health":{{if .State.Health}}{{json .State.Health.Status}}{{else}}null{{end}}'
    facts=$facts',"exitCode":{{if or (eq .State.Status "exited") (eq .State.Status "dead")}}{{.State.ExitCode}}'
    facts=$facts'{{else}}null{{end}}}'
    [ -z "$ids" ] || ! inspect "$facts" || return 0
    list_containers || return 1
    containers=
    [ -z "$ids" ] || inspect "$facts"
}

give_up_looking() {
    require_docker
    ! is_late || fail_late
    fail TASK_FAILED "Docker did not list the containers of project '$project'."
}

show_services() {
    look || give_up_looking
    tell_services
}

tell_services() {
    [ -z "$stranger" ] || return 0
    while read -r id started restarts state_now code health policy hash service; do
        [ -z "$id" ] || tell service "$service"
    done <<CONTAINERS
$containers
CONTAINERS
}

show_logs() {
    while read -r id name; do
        [ -n "$id" ] || continue
        prefix="$name | "
        say bounded docker logs --tail 20 "$id"
        prefix=
    done <<TROUBLED
$troubled
TROUBLED
}

require_docker() {
    bounded docker version --format '{{.Server.Version}}' >/dev/null 2>&1 && return
    say bounded docker version --format '{{.Server.Version}}'
    fail DOCKER_UNAVAILABLE "${last:-The docker daemon does not answer.}"
}

# After compose failed with `words`: ends the phase if that was for want of docker or because of the compose file. What
# still works tells the reason; compose's exit codes differ between its versions.
rule_out() {
    require_docker
    bounded docker compose version >/dev/null 2>&1 || fail DOCKER_UNAVAILABLE 'Docker compose v2 was not found.'
    compose_in "$1" config --quiet >/dev/null 2>&1 || fail COMPOSE_INVALID "$words"
}

have_images() {
    set --
    while read -r image; do
        set -- "$@" "$image"
    done <"$state/images"
    [ "$#" -eq 0 ] || bounded docker image inspect --format '{{.ID}}' "$@" >/dev/null 2>&1
}

# Whether all services are behind profiles, as Prepare has found.
runs_nothing() {
    [ -f "$state/images" ] && [ ! -s "$state/images" ]
}

recall_baseline() {
    baseline=$newline
    [ -f "$state/baseline" ] || return 0
    while read -r line; do
        baseline=$baseline$line$newline
    done <"$state/baseline"
}

# Sets `restarted` to how often docker has restarted the container during the run, and `touched` to whether it was
# started in this run at all.
compare_with_baseline() {
    touched=yes restarted=$restarts
    case $baseline in
        *"$newline$id $started $restarts "*) touched=no restarted=0 ;;
        *"$newline$id "*)
            before=${baseline#*"$newline$id "}
            before=${before#* }
            restarted=$((restarts - ${before%% *}))
            [ "$restarted" -ge 0 ] || restarted=$restarts # docker counts anew when a container is started by hand
            ;;
    esac
}

# Sets `steady` to how long the container has run in one piece, as far as this run has seen.
measure_steadiness() {
    eval "seen=\${seen_$id:-}"
    if [ "${seen% *}" != "$started" ]; then
        seen="$started $now"
        [ "$touched$restarted" != yes0 ] || seen="$started $up_at" # never restarted: it has run since Up at the latest
        eval "seen_$id=\$seen"
    fi
    steady=$((now - ${seen#* }))
}

is_recent() {
    [ "$1" \> "$(date -u -d "@$(($(date +%s) - 10))" +%Y-%m-%dT%H:%M:%S)" ]
}

name_service() {
    name=${service#*\"name\":\"}
    name=${name%%\"*}
}

# Sorts the containers into `failing` (sentences), `pending` (names with their states) and fine ones. `nearest` is how
# soon one that only has to stay up has done so, or a while; `troubled` names the containers whose logs are of interest.
judge() {
    failing= pending= culprits= waiting= nearest=$((poll + 10))
    tick
    while read -r id started restarts state_now code health policy hash service; do
        [ -n "$id" ] || continue
        name_service
        compare_with_baseline
        trouble= wait_for=
        case $state_now in
            running)
                required=0
                if [ "$restarted" -gt 0 ]; then
                    required=1000
                elif [ "$touched" = yes ]; then
                    [ "$health" = healthy ] || required=$settle
                elif [ "$restarts" -gt 0 ] && is_recent "$started"; then
                    required=1000 # it was in a crash loop before this run began
                fi
                measure_steadiness
                if [ "$health" = unhealthy ]; then
                    trouble='is unhealthy'
                elif [ "$restarted" -ge 5 ]; then
                    trouble="restarted $restarted times"
                elif [ "$health" = starting ]; then
                    wait_for=starting
                elif [ "$steady" -lt "$required" ]; then
                    wait_for='not steady'
                    [ $((required - steady)) -ge "$nearest" ] || nearest=$((required - steady))
                fi
                ;;
            restarting)
                wait_for=restarting
                [ "$restarted" -lt 5 ] || trouble="restarted $restarted times, exit code $code"
                ;;
            exited)
                case $code,$policy in
                    0,no | 0,on-failure) ;;
                    0,*) wait_for='exited, to be restarted' ;;
                    *)
                        trouble="exited with code $code"
                        case $phase$baseline in
                            up*"$newline$id $started $restarts exited$newline"*) trouble= ;; # up has not come to it
                        esac
                        ;;
                esac
                ;;
            dead) trouble='is dead' ;;
            *) wait_for=$state_now ;;
        esac
        if [ -n "$trouble" ]; then
            failing="$failing Service '$name' $trouble."
            culprits=$culprits$id\ $name$newline
        elif [ -n "$wait_for" ]; then
            pending="$pending, $name ($wait_for)"
            waiting=$waiting$id\ $name$newline
        fi
    done <<CONTAINERS
$containers
CONTAINERS
    failing=${failing# } pending=${pending#, } troubled=$culprits
}

# Waits for every container to be up. False, with `reason` and `detail`, when that cannot or did not happen.
wait_until_up() {
    tick
    begun=$now poll=20 told=
    while :; do
        [ -n "$looked" ] || look || give_up_looking
        looked=
        if [ -z "$containers" ]; then
            expects_none && return 0
            reason=UNHEALTHY detail="Project '$project' has no containers."
            return 1
        fi
        judge
        if [ -n "$failing" ]; then
            reason=UNHEALTHY detail=$failing
            return 1
        fi
        [ -n "$pending" ] || return 0
        if is_late; then
            troubled=$waiting
            reason=UNHEALTHY detail="Not up within $seconds s: $pending."
            return 1
        fi
        if [ "$pending" != "$told" ] && [ $((now - begun)) -ge 80 ]; then
            told=$pending
            printf '| Waiting for %.2000s\n' "$pending"
        fi
        [ $((now - begun)) -lt 500 ] || poll=50
        [ $((now - begun)) -lt 3000 ] || poll=100
        [ "$nearest" -lt $((poll + 10)) ] || nearest=$poll # rather a little more than to look twice
        [ "$nearest" -le 3 ] || nearest=$((nearest - 1))    # to look takes longer than this
        sleep "$((nearest / 100)).$((nearest % 100 / 10))$((nearest % 10))"
    done
}

# Whether the compose file asks for no container: all its services are behind profiles, or scaled to zero.
expects_none() {
    ! runs_nothing || return 0
    services=$(compose_in "$directory" config --services 2>/dev/null) || return 1
    [ -z "$services" ] || are_scaled_to_zero "$services"
}

are_scaled_to_zero() {
    scaled=$newline$(
        compose_in "$directory" config 2>/dev/null | awk '
            /^[^ ]/ { inside = ($1 == "services:") }
            inside && /^  [^ ]/ { name = $1; sub(/:$/, "", name) }
            inside && (/^    scale: 0$/ || /^      replicas: 0$/) { print name }'
    )$newline
    for name in $1; do
        case $scaled in
            *"$newline$name$newline"*) ;;
            *) return 1 ;;
        esac
    done
}

# Sets `manifest` to what the server says of the package's files. False when it ends too soon.
receive_manifest() {
    manifest=
    while IFS= read -r line; do
        [ -n "$line" ] || return 0
        manifest=$manifest$line$newline
    done
    return 1
}

# Sets `differing` to the paths that are new or changed, `obsolete` to those that only the package before had.
compare_files() {
    differing= obsolete= all_same=
    if [ -d "$directory" ]; then
        checked=$(
            cd "$directory" && sha256sum -c - 2>/dev/null <<MANIFEST
${manifest%"$newline"}
MANIFEST
        ) && all_same=yes
        while IFS= read -r line; do
            case $line in
                *': FAILED'*) differing=$differing${line%': FAILED'*}$newline ;;
            esac
        done <<CHECKED
$checked
CHECKED
    else
        while IFS= read -r line; do
            [ -z "$line" ] || differing=$differing${line#*  }$newline
        done <<MANIFEST
$manifest
MANIFEST
    fi
    [ -n "$differing$all_same" ] || return 1
    [ -f "$state/manifest" ] || return 0
    while IFS= read -r line; do
        path=${line#*  }
        case $manifest in
            *"  $path$newline"*) ;;
            *) [ ! -f "$directory/$path" ] || obsolete=$obsolete$path$newline ;;
        esac
    done <"$state/manifest"
}

# Whether compose would read something else than before, or nobody knows what it has read.
describes_another() {
    [ -f "$state/images" ] || return 0
    case $newline$differing in
        *"$newline./compose.yaml$newline"* | *"$newline./.env$newline"*) return 0 ;;
    esac
    return 1
}

# Unpacks the package beside the project, so that a full disk or a lost connection leaves the project as it was.
unpack() {
    mkdir -p "$fresh" || return 1
    # A container may have it mounted as a whole; only .env is nobody else's business.
    [ -d "$directory" ] || mkdir -m 755 "$directory" || return 1
    # With the modes of the archive: containers read these files as other users, through bind mounts that pass by the
    # closed directories above.
    bounded tar -xpmof - -C "$fresh"
}

# Whether files differ that containers may have mounted. Compose sees a change of compose.yaml and .env by itself.
touches_mounts() {
    while IFS= read -r path; do
        case $path in
            '' | ./compose.yaml | ./.env) ;;
            *) return 0 ;;
        esac
    done <<PATHS
$differing$obsolete
PATHS
    return 1
}

# Moves the package's files into the project, each by a rename: whoever reads a file gets the old one or the new one.
move_files() {
    # If this is cut off, what the next run finds must not be the images of other files.
    [ -z "$judging" ] || [ ! -f "$state/images" ] || rm -f "$state/images" || return 1
    while IFS= read -r path; do
        [ -z "$path" ] || rm -f "$directory/$path" || return 1
    done <<OBSOLETE
$obsolete
OBSOLETE
    parent=
    set --
    while IFS= read -r path; do
        [ -n "$path" ] || continue
        if [ "$parent" != "$directory/${path%/*}" ]; then
            move_into "$parent" "$@" || return 1
            parent=$directory/${path%/*}
            set --
        fi
        # Where a file to be mounted was missing, docker has made an empty directory.
        [ ! -d "$directory/$path" ] || rmdir "$directory/$path" || return 1
        set -- "$@" "$fresh/$path"
    done <<DIFFERING
$differing
DIFFERING
    move_into "$parent" "$@" || return 1
    [ -z "$judging" ] || mv -f "$state/images.new" "$state/images" || return 1
    printf %s "$manifest" >"$state/manifest.new" && mv -f "$state/manifest.new" "$state/manifest"
}

# Moves files into a directory, which is made if need be: a program for each file would take longer than all the rest.
move_into() {
    [ "$#" -gt 1 ] || return 0
    into=$1
    shift
    [ -d "$into" ] || (umask 022 && mkdir -p "$into") || return 1
    mv -f "$@" "$into/"
}

# What docker and compose are asked, and what is done to the files, goes on side by side: each question is a program that
# takes longer than all the rest. Files are unpacked only where some differ.
prepare() {
    fresh=$directory.new
    [ ! -e "$fresh" ] || rm -rf "$fresh"
    see_containers >"$state/seen" 2>/dev/null </dev/null 4>&- &
    seeing=$! judging= problem=
    if ! receive_manifest; then
        received=yes problem='The files could not be unpacked: the package ended too soon.'
    elif ! compare_files; then
        problem='The files could not be compared with those on the host.'
    elif [ -z "$differing" ] && ! describes_another; then
        fresh=
    else
        hush unpack
        received=yes
        if [ "$status" -ne 0 ]; then
            problem="The files could not be unpacked: $last"
            rm -rf "$fresh" # it may be what the disk is full of
        elif describes_another; then
            compose_in "$fresh" config --images >"$state/images.new" 2>/dev/null </dev/null 4>&- &
            judging=$!
        fi
    fi
    if [ -z "$problem" ] && [ -f "$state/images" ] && have_images; then
        has_images=yes # of the package before
    fi
    recall_containers || give_up_looking
    refuse_strangers
    hush remember_beginning
    [ "$status" -ne 0 ] || marked=yes
    if [ -n "$problem" ]; then
        ! is_late || fail_late
        fail TASK_FAILED "$problem"
    fi
    [ -n "$marked" ] || fail TASK_FAILED "The run could not be noted in $state. Is the disk full?"
    if [ -n "$judging" ] && ! wait "$judging"; then
        say compose_in "$fresh" config --quiet
        words=$last
        ! is_late || fail_late
        rule_out "$fresh"
        fail TASK_FAILED "$words"
    fi
    [ -z "$judging" ] || has_same_images || has_images=
    [ -n "$judging$differing$obsolete" ] || return 0
    if [ -n "$ids" ] && touches_mounts; then
        : >"$state/recreate" # before the files are moved: after a crash it would be too late
    fi
    hush move_files
    [ "$status" -eq 0 ] || fail TASK_FAILED "The files could not be moved into the project: $last"
    changed=true
}

# Whether the package's images are those of the package before.
has_same_images() {
    [ -f "$state/images" ] || return 1
    read_all "$state/images.new"
    images=$text
    read_all "$state/images"
    [ "$text" = "$images" ]
}

# Prints what list_containers and a look at the services' containers find.
see_containers() {
    list_containers || return 1
    containers=
    [ -z "$ids" ] || inspect '{{.ID}} {{.State.StartedAt}} {{.RestartCount}} {{.State.Status}}' || return 1
    printf '%s\n' "$listing" / "$containers"
}

# Sets what see_containers has found in the background; what it could not write down is looked for again.
recall_containers() {
    if wait "$seeing" && read_all "$state/seen" && [ -n "$text" ]; then
        listing=${text%%"$newline/"*} containers=${text#*"$newline/"}
        containers=${containers#"$newline"} containers=${containers%"$newline"}
        read_listing
    else
        list_containers || return 1
        containers=
        [ -z "$ids" ] || inspect '{{.ID}} {{.State.StartedAt}} {{.RestartCount}} {{.State.Status}}'
    fi
}

remember_beginning() {
    mark_beginning && printf '%s\n' "$deployment" >"$state/owner" && printf '%s\n' "$containers" >"$state/baseline"
}

pull() {
    continue_run
    if [ -n "$has_images" ] || { [ -f "$state/images" ] && have_images; }; then
        return
    fi
    if ! log_in; then
        ! is_late || fail_late
        show_services
        require_docker
        fail IMAGE_PULL_FAILED "$login_problem"
    fi
    say compose_in "$directory" pull --policy missing --ignore-buildable
    if [ "$status" -ne 0 ]; then
        words=$last
        ! is_late || fail_late
        show_services
        rule_out "$directory"
        fail IMAGE_PULL_FAILED "$words"
    fi
    changed=true
}

up() {
    continue_run
    recall_baseline
    # Nobody knows before whether compose will need it, and it tells itself what it could not pull.
    [ -z "$logins" ] || ! may_pull || log_in || printf '| %s\n' "$login_problem"
    if runs_nothing; then
        say compose down --remove-orphans # compose refuses to go up without a service
    else
        recreate=
        [ ! -f "$state/recreate" ] || recreate=--force-recreate
        say compose_in "$directory" up --detach --remove-orphans $recreate
    fi
    [ "$status" -eq 0 ] || explain_up
    tick
    up_at=$now
    [ ! -f "$state/recreate" ] || rm -f "$state/recreate"
    [ -z "$made" ] || ids= # they are others now
    look || give_up_looking
    looked=yes
    list_starts "$baseline"
    before=$starts
    list_starts "$containers"
    [ "$before" = "$starts" ] || changed=true
}

# Sets `starts` to the ids of the containers and when each was started.
list_starts() {
    starts=
    while read -r id started _; do
        [ -z "$id" ] || starts="$starts$id $started$newline"
    done <<CONTAINERS
$1
CONTAINERS
}

explain_up() {
    words=$last code=$status late= up_at=0 poll=0
    ! is_late || late=yes
    deadline=$((now + 1000)) # to find the reason
    show_services
    judge
    if [ -n "$late" ]; then
        case $pending in
            *'(starting)'* | *'(restarting)'*) failing=${failing:-"Not up within $seconds s: $pending."} ;;
        esac
        [ -n "$failing" ] || fail_late
    else
        rule_out "$directory"
        if [ "$code" -eq 18 ] || { [ "$code" -ne 17 ] && ! have_images; }; then # 17: an image could not be built
            fail IMAGE_PULL_FAILED "$words"
        fi
    fi
    [ -n "$failing" ] || fail TASK_FAILED "$words"
    show_logs
    fail UNHEALTHY "$failing"
}

verify() {
    if [ -z "$up_at" ]; then
        read_marker
        up_at=$marker_at
    fi
    continue_run
    recall_baseline
    if ! wait_until_up; then
        tell_services
        show_logs
        finish failed
    fi
    tell_services
}

down() {
    list_containers || give_up_looking
    refuse_strangers
    ! mark_beginning 2>/dev/null || marked=yes # a full disk does not matter here
    [ -z "$listing" ] || changed=true
    status=1
    [ ! -f "$directory/compose.yaml" ] || say compose_in "$directory" down --remove-orphans
    list_containers || give_up_looking
    if [ "$status" -ne 0 ] || [ -n "$listing" ]; then
        say compose down --remove-orphans # by the labels of what is there
        list_containers || give_up_looking
    fi
    if [ -n "$listing" ]; then
        words=$last
        ! is_late || fail_late
        show_services
        require_docker
        fail TASK_FAILED "${words:-"Containers of project '$project' are left."}"
    fi
    rm -f "$state/owner" "$state/baseline" "$state/recreate"
}

# Ends what a run has left at work, and tells how far it had come and what is there. Changes nothing else.
halt() {
    busy=false matching=false verdict=
    read_lock
    [ "$lock_deployment" != "$deployment" ] || end_work "$lock_pid" watch
    if [ -d "$state" ]; then
        if take_lock $((seconds * 50)); then
            rm -rf "$directory.new" "$state"/*.new
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
    [ "$phase" = settle ] || tell_services
}

# As `halt`, and finds out what the run would have ended with.
settle() {
    halt
    [ -n "$stranger" ] || ! matches || matching=true
    tell matching "$matching"
    [ "$busy$marker_run" != "false$run" ] || reach_verdict
    [ -z "$verdict" ] || tell verdict "$verdict"
    tell_services
}

# Whether the containers are those that the files describe, and each of them has been started.
matches() {
    [ -f "$directory/compose.yaml" ] || return 1
    hashes=$(compose_in "$directory" config --hash '*' 2>/dev/null) || return 1
    recall_baseline
    present=' '
    while read -r id _ _ state_now _ _ _ hash service; do
        [ -n "$id" ] || continue
        name_service
        present="$present$name "
        case $newline$hashes$newline in
            *"$newline$name $hash$newline"*) ;;
            *) return 1 ;;
        esac
        [ "$state_now" != created ] || return 1
        case $baseline in
            *"$newline$id "*) [ ! -f "$state/recreate" ] || return 1 ;;
        esac
    done <<CONTAINERS
$containers
CONTAINERS
    absent=
    while read -r name _; do
        case $present in
            *" $name "*) ;;
            *) absent="$absent $name" ;;
        esac
    done <<HASHES
$hashes
HASHES
    [ -z "$absent" ] || are_scaled_to_zero "$absent"
}

# Sets `verdict` on the run that the marker tells of. None when the host cannot know, because the work was not done.
reach_verdict() {
    case $marker_action,$marker_phase,$marker_state in
        *,failed) verdict=failed reason=$marker_reason detail=$marker_detail ;;
        DOWN,*) [ -n "$listing" ] || verdict=ok ;;
        UP,up,* | UP,verify,*)
            [ "$matching" = true ] || return
            tick
            up_at=$now
            case $marker_phase,$marker_state in
                up,done | verify,*) [ "$marker_at" -gt "$now" ] || up_at=$marker_at ;; # later: the host was restarted
            esac
            recall_baseline
            verdict=ok
            wait_until_up || verdict=failed
            # Still undecided when the time is up: nobody can say yet whether they will be well.
            if [ "$verdict" = failed ] && [ -z "${failing-}" ] && is_late; then verdict= reason= detail=; fi
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

exec 4>&1
printf '. \n'
begin_phase
while [ "$count" -gt 0 ]; do
    IFS= read -r login
    logins=$logins$login$newline count=$((count - 1))
done
[ -n "${HOME:-}" ] || derive_home # LOCAL, started by systemd
[ -d "$HOME" ] || fail TASK_FAILED 'The user has no home directory on the host.'
directory=$HOME/.daos/projects/$project
state=$HOME/.daos/state/$project
cd /

command -v docker >/dev/null || fail DOCKER_UNAVAILABLE 'Docker was not found on the host.'
require_tool flock util-linux
require_tool timeout coreutils
require_tool tar tar
find_plugin

if [ "$phase" != settle ] && [ "$phase" != halt ]; then
    if [ ! -d "$state" ]; then
        hush mkdir -p "$state"
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
