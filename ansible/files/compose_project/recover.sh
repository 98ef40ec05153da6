# The phases after a run that was cut off: `halt` ends its remaining processes, `recover` also finds out how it ended.
#
# Reads   state, run, deployment
# Sets    busy, verdict

# Ends the remaining processes of a run, and prints its marker and the containers. Changes nothing else.
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
    for key in run phase state; do
        eval "value=\$marker_$key"
        [ -z "$value" ] || tell marker "$key=$value"
    done
    look || give_up_looking
}

# Does what `halt` does, and finds out how the run would have ended.
recover() {
    halt
    [ "$busy$marker_run" != "false$run" ] || reach_verdict
    [ -z "$verdict" ] || tell verdict "$verdict"
}

# Has the server compare the containers with those that the run was to bring up. False if they differ.
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
        # shellcheck disable=SC2086 # a list
        see_images $reply_inspect
        ask recovery
    done
    [ "$reply_matching" = yes ]
}

# Sets `verdict` on the run in the marker. It is empty if the host cannot know, because the work was not completed.
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
            # Still undecided when the time is up: it is not yet known whether the containers will be well.
            [ "$reason" != TIMEOUT ] || verdict= reason= detail=
            ;;
    esac
}
