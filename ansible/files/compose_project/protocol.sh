# Phases of a run, on the host. Sent by the action plugin compose_project; for any POSIX sh on Linux.
#
# It observes and acts. The server (runner/host/answers.py) decides what to do and whether it succeeded; the script asks
# it over the channel by which it was sent.
#
# Arguments   phases run deployment installation project limits logins delivery manifest seeds override outside [rival...]
#               limits    the seconds of each phase, separated by commas, as the phases are
#               logins    the number of logins at registries
#               delivery  the id of the package's content, "-" without Prepare
#               manifest  the bytes of the manifest; seeds: of the list of files that are only created when missing
#               override  the file that Compose merges into compose.yaml, or "-"
#               outside   "yes" if Compose may read files that are not in the package, else "no"
# Stdin       a line that is ignored; with prepare, a line for each login, "registry password user", the password as
#             `printf %b` reads it; the manifest, as sha256sum prints it; the seeds, one path a line; then the answers
# Answers     lines of "key value", and an empty line; after "size BYTES" as many bytes follow the empty line, a tar
# Stdout      NUL             heartbeat: still active; it can occur anywhere
#             "| text"        a line of output of Docker, Compose, or a container
#             "= key value"   a fact for the server; "= phase NAME" begins a phase, "= result ok" or "= result failed"
#                             ends it, and a phase that failed is the last one; "= ask NAME" requests an answer
# Status      0 if a result was printed
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
#                             links      paths that containers mount and could have replaced by links
#                             move, delete  files that a cut-off run may not have moved or deleted, one path a line
#                             baseline   the containers before the run; ids: those after it
#                             login.PID  the path of Docker's configuration with the run's logins while images
#                                        are pulled, a directory in /dev/shm; without /dev/shm, the directory itself
#                             new/       files that will replace those above, and files that are needed only in this run
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

# Time is the host's uptime in hundredths of a second: reading it needs no process, and it does not jump.
tick() {
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}
}

is_late() {
    tick
    [ "$now" -ge "$deadline" ]
}

# Sets `text` to a file's lines, each with its newline. The shell reads byte by byte, but faster than a program starts.
read_all() {
    text=
    while IFS= read -r line || [ -n "$line" ]; do
        text=$text$line$newline
    done <"$1"
}

# Runs a command with the remaining time of the phase as its time limit.
bounded() {
    tick
    left=$(((deadline - now + 99) / 100))
    [ "$left" -gt 0 ] || left=1
    timeout -k 2 "$left" "$@" 4>&- 6<&- # busybox's leaves a process behind for up to a second
}

tell() {
    printf '= %s %.2000s\n' "$1" "$2"
}

# Forwards lines with their prefix; then prints whether there was more output than that containers are already running,
# and the last line. The dot at the end shows that it was not ended early.
relay() {
    last= made=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            *'Exiting with failure status'*) ;; # tar, after the actual error message
            *' Running' | *' Running ') last=$line ;;
            *[![:space:]]*) last=$line made=yes ;;
        esac
        printf '| %s%.2000s\n' "$prefix" "$line" >&4
    done
    printf '%s\n%.500s.' "$made" "$last"
}

# Sets `made` and `last` to what relay has printed. relay ends early when the channel is closed, and its command may
# have failed only because of that: the marker is left unchanged, and the next run of halt or recover finds out how it
# ended.
take_in() {
    case $1 in
        *.) ;;
        *) exit 1 ;;
    esac
    made=${1%%"$newline"*} last=${1#*"$newline"}
    last=${last%.}
    last=${last#"${last%%[![:space:]]*}"}
}

# Runs a command and relays its output. Sets `status`, `made`, and `last` to its last line.
say() {
    answer=$({ { "$@" 2>&1 3>&- 4>&-; echo "$?" >&3; } | relay 3>&-; } 3>&1)
    status=${answer%%"$newline"*}
    take_in "${answer#*"$newline"}"
}

# The same for commands that print nothing on success: output is relayed after the command has ended. Costs one fork.
hush() {
    answer=$("$@" 2>&1 4>&-)
    status=$? made= last=
    [ -z "$answer" ] || take_in "$(printf '%s\n' "$answer" | relay)"
}

# Asks the server, and sets `reply_*` to its answer. If the channel is closed instead, the phase ends without a result.
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

# Unpacks the bytes that follow an answer into a directory. Containers and builds read the files as other users; the
# parent directories are closed to them. If the channel is closed meanwhile, tar may accept a truncated archive as
# complete: files that must be complete are used only after another answer.
receive() {
    head -c "$reply_size" <&6 | (umask 022 && bounded tar -xpmof - -C "$1")
}
