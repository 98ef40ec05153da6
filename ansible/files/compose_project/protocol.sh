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
