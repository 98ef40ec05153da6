# The marker: which run was here last, and how far it got.
#
# Reads   state, run, deployment, phase, reason, detail
# Sets    marked, marker_*

read_marker() {
    # shellcheck disable=SC2034 # used by name
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

# Appends the progress of the run to the marker: later lines win. A full disk is ignored here. It can truncate this
# text, so the state is last, and an empty line at the beginning ends a line that was truncated before.
mark() {
    tick
    printf '%s\n' '' "phase=$phase" "reason=$reason" "detail=$detail" "at=$now" "state=$1" >>"$state/run"
} 2>/dev/null

begin() {
    marked=yes
    mark running
}
