# Phases: how one begins, ends, and fails.
#
# Reads   phases, limits, directory, tree, state, litter, at_work, unread, marked, heartbeat
# Sets    phase, seconds, deadline, effect, reason, detail

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
            # shellcheck disable=SC2086 # several pids
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
