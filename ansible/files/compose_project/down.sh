# The phase that takes a project down.
#
# Reads   state, directory, run
# Sets    effect, marked

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
        say compose down --remove-orphans # by the labels of the existing containers
        list_containers || give_up_looking
    fi
    if [ -n "$ids$one_offs" ]; then
        status=1
        explain TASK_FAILED "${last:-"Containers of project '$project' are left."}"
    fi
    rm -f "$state/owner" "$state/baseline"
}
