# Lets one run at a time work on a project, and ends its work when the channel is closed.
#
# Reads   state, deadline, run, deployment
# Sets    heartbeat, lock_pid, lock_run, lock_deployment, workers, watchers, login_config

# Waits for the lock, for the given hundredths of a second. It is acquired on descriptor 8 and signed before it becomes
# descriptor 9: a process that has the lock file as descriptor 9 belongs to the phase that signed it.
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

# Ends the work when the channel is closed: sshd closes it when the client is gone, but kills no process.
watch_channel() {
    exec 9>&- 7<"$state/lock" # the watch is not part of the work, and is identified by descriptor 7
    trap '' TERM HUP INT # sent to the whole group, they would end the watch but not the work, which has its own group
    trap : PIPE          # makes the write fail instead of ending the watch
    sleeper=
    trap 'kill -KILL $sleeper; exit' USR1
    while [ "/proc/$$/fd/9" -ef "$state/lock" ] && printf '\000'; do
        # shellcheck disable=SC2217 # it must not hold the channel
        sleep 1 </dev/null >/dev/null 4>&- & # otherwise the channel would stay open for this second after the phase
        sleeper=$!
        wait "$sleeper"
    done
    end_work "$$"
    forget_logins "$$"
} 2>/dev/null

# Ends the phase whose pid is given, and all that it has started; with a second argument its watch too.
end_work() {
    find_workers "$1"
    # shellcheck disable=SC2086 # several pids
    [ -z "$workers" ] || kill -TERM $workers 2>/dev/null
    # shellcheck disable=SC2086 # several pids
    [ -z "${2:+$watchers}" ] || kill -USR1 $watchers 2>/dev/null
    tick
    patience=$((now + 150))
    while [ -n "$workers${2:+$watchers}" ] && [ "$now" -lt $((patience + 300)) ]; do
        # shellcheck disable=SC2217 # it must not hold the channel
        sleep 0.1 </dev/null >/dev/null 2>&1 4>&-
        find_workers "$1"
        tick
        # shellcheck disable=SC2086 # several pids
        [ "$now" -lt "$patience" ] || [ -z "$workers" ] || kill -KILL $workers 2>/dev/null
    done
}

# Sets `workers` to the pids of a phase and of all that it has started, `watchers` to those of its watch. The phase is
# first, so that it does not see its commands end before itself. The signature is read after the search, because the
# next run may acquire the lock at any moment.
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

# Removes the configurations with logins that the phase with this pid has left; with "*", all of them.
forget_logins() {
    for left_config in "$state"/login.$1; do
        if [ -f "$left_config" ] && read -r place <"$left_config" && [ ! -L "$place" ] && [ -O "$place" ]; then
            rm -rf "$place" # checked, because after a restart of the host it may belong to another user
        fi
        [ ! -e "$left_config" ] || rm -rf "$left_config"
    done 2>/dev/null
    [ -z "$login_config" ] || rm -rf "$login_config" # on a full disk, its name may not have been stored
    login_config=
}
