# Runs the phases.
#
# Reads   the arguments, and the first lines of the channel
# Sets    HOME, directory, tree, state

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

# No program that is started inherits the channel, or it could read the answers.
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

command -v docker >/dev/null || fail DOCKER_UNAVAILABLE 'The program docker was not found on the host; install Docker with its Compose plugin, at least 2.26.'
require_tool flock util-linux
require_tool timeout coreutils
require_tool tar tar
require_tool sha256sum coreutils
find_plugin

if [ "$phase" != recover ] && [ "$phase" != halt ]; then
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
