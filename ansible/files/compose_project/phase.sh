# The beginning, end, and failure of phases.
#
# Reads   phases, limits, directory, tree, state, litter, at_work, unread, marked, heartbeat
# Sets    phase, seconds, deadline, effect, reason, detail

# Begins the next phase in `phases`.
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

# Prints how the phase ended, after background work has ended and temporary files are removed.
end_phase() {
    case $1,$phases in
        failed,* | *,)
            # shellcheck disable=SC2086 # several pids
            [ -z "$at_work" ] || wait $at_work
            [ -z "$litter" ] || sweep
            ;;
    esac
    case $phase,$1,$phases in
        prepare,ok,?* | build,ok,?*) ;; # Pull may need the logins too; Up does not pull
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
        bounded cat <&6 >/dev/null # otherwise ssh may mistake the closed pipe for a lost host
    fi
}

# Removes files that exist only while a phase is running.
sweep() {
    rm -rf "$directory.new" "$tree.new" "$state/new"/*
}

finish() {
    end_phase "$1"
    if [ -n "$heartbeat" ]; then
        kill -USR1 "$heartbeat"
        wait "$heartbeat"
        flock -u 9 # processes that busybox's timeout leaves behind hold it, too
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

# Ends the phase with the server's explanation of the output: its reason and sentence, or else the given ones.
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

# Sets `reason` and `detail` to the server's, after sending the logs that it requests.
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
