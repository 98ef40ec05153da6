# The phases that bring a project up: prepare, build, pull, up, verify.
#
# Reads   the arguments, and the server's answers
# Sets    for the next phases: to_build, to_pull, to_recreate, rest, services, unavailable, moves, env_mode

# Docker and Compose are queried in parallel: each query is a program that takes longer than all the rest. The project
# is not changed: a run that fails here, in Build, or in Pull does not touch its files and containers.
prepare() {
    refuse_rivals
    litter=yes delivered= words= inspecting= looking=
    set -- "$state/new"/*
    [ ! -e "$1" ] || rm -rf "$@" # of a run that was cut off
    note_listing 2>/dev/null &
    seeing=$!
    if [ -s "$state/ids" ]; then
        read_all "$state/ids"
        ids=${text%"$newline"}
        note_baseline 2>/dev/null &
        inspecting=$! recalled=$ids
    fi
    see_versions >"$state/new/versions" 2>/dev/null &
    asking=$!
    if [ -f "$state/images" ]; then
        # These are usually the images that the server will ask about.
        read_all "$state/images"
        # shellcheck disable=SC2086 # a list
        see_images $text >"$state/new/found" 2>/dev/null &
        looking=$!
    fi
    [ ! -f "$state/delivered" ] || read -r delivered <"$state/delivered"
    hush receive_lists
    [ "$status" -eq 0 ] || words="The list of files could not be written: $last"
    if [ -z "$words" ] && { [ "$delivered" != "$delivery" ] || [ ! -d "$tree" ]; }; then
        ask archive
        unread=yes delivered=
        hush renew_tree
        if [ "$status" -eq 0 ]; then unread=; else words="The files could not be unpacked: $last"; fi
        [ "$status" -eq 0 ] || rm -rf "$tree.new" # it may be what fills the disk
    fi
    if [ -z "$words" ] && { [ "$outside" = yes ] || [ ! -f "$state/resolved" ]; }; then
        resolve &
        at_work=$!
    fi
    if wait "$seeing" && [ -f "$state/new/listing" ]; then
        read_all "$state/new/listing"
        listing=$text
    else
        listing= # a full disk is not a failure of Docker
        [ -n "$words" ] || list_containers || give_up_looking
    fi
    read_listing
    refuse_strangers
    if [ -z "$inspecting" ] || ! wait "$inspecting" || [ "$ids" != "$recalled" ]; then
        [ -n "$words" ] || note_baseline || words="The containers could not be noted in $state."
    fi
    if [ -z "$words" ]; then
        hush remember_beginning
        if [ "$status" -eq 0 ]; then marked=yes; else words="The run could not be noted in $state: $last"; fi
    fi
    [ -z "$words" ] || explain TASK_FAILED "$words"
    tell tree "$tree"
    tell directory "$directory"
    compare_files || explain TASK_FAILED 'The files could not be compared with those on the host.'
    [ -f "$state/notes" ] || [ ! -f "$state/manifest" ] || sed 's/^[^ ]*  /= had /' "$state/manifest"
    [ ! -s "$state/move" ] || sed 's/^/= changed /' "$state/move"
    [ ! -s "$state/delete" ] || sed 's/^/= had /' "$state/delete"
    wait "$asking"
    set -- "$state/new/versions" "$state/baseline"
    [ -z "$looking" ] || ! wait "$looking" || set -- "$@" "$state/new/found"
    [ -z "$at_work" ] || wait "$at_work" || refused=yes
    at_work=
    [ ! -s "$state/words" ] || say cat "$state/words"
    if [ -n "${refused-}" ]; then
        rm -f "$state/resolved"
        cat "$@"
        status=1
        explain COMPOSE_INVALID "$last"
    fi
    for fact in notes built resolved; do
        [ ! -f "$state/$fact" ] || set -- "$@" "$state/$fact"
    done
    cat "$@"
    ask plan
    [ "$delivered" = "$delivery" ] || printf '%s\n' "$delivery" >"$state/delivered" # it is complete, see receive
    while [ -n "$reply_inspect" ]; do
        echo "$reply_inspect" >"$state/images"
        # shellcheck disable=SC2086 # a list
        see_images $reply_inspect
        ask plan
    done
    to_build=$reply_build to_pull=$reply_pull to_recreate=$reply_recreate rest=$reply_rest services=$reply_services
    unavailable=$reply_unavailable moves=$reply_moves env_mode=$reply_mode
    if [ -n "$reply_size" ]; then
        unread=yes
        hush receive "$state/new"
        [ "$status" -eq 0 ] || explain TASK_FAILED "The notes of the run could not be written: $last"
        unread=
    fi
}

# Stores the list of the project's containers. Only printf detects a full disk.
note_listing() {
    list_containers && printf '%s\n' "$listing" >"$state/new/listing"
}

# Stores the project's containers before the run.
note_baseline() {
    text=
    [ -z "$ids" ] || text=$(inspect) || return 1
    printf '%s\n' '= baseline' "$text" >"$state/new/baseline"
}

# Replaces the tree by the package that the server sends.
renew_tree() {
    rm -rf "$state/delivered" "$state/resolved" "$tree.new" && mkdir "$tree.new" && receive "$tree.new" && rm -rf "$tree" &&
        mv "$tree.new" "$tree"
}

# Has Compose resolve the tree; here it refuses files that it cannot use.
resolve() {
    compose_tree config --format json >"$state/new/json" 2>"$state/words" || return 1
    { printf '= model ' && tr -d '\n' <"$state/new/json" && echo; } >"$state/new/resolved" &&
        mv -f "$state/new/resolved" "$state/"
}

# One head for both lists, because busybox's head reads beyond the requested number of bytes.
receive_lists() {
    if [ "$seeds_size" -eq 0 ]; then
        head -c "$manifest_size" <&6 >"$state/new/manifest"
        return
    fi
    head -c "$((manifest_size + seeds_size))" <&6 >"$state/new/lists" &&
        head -c "$manifest_size" "$state/new/lists" >"$state/new/manifest" &&
        tail -c "$seeds_size" "$state/new/lists" >"$state/new/seeds"
}

remember_beginning() {
    mark_beginning && printf '%s %s\n' "$deployment" "$installation" >"$state/owner" &&
        mv -f "$state/new/run" "$state/new/baseline" "$state/"
}

build() {
    begin
    [ -n "$to_build" ] || return 0
    # It is not known which registries the build needs, and the build itself reports what it could not pull.
    log_in || printf '| %s\n' "$login_problem"
    # shellcheck disable=SC2086 # a list
    say compose_tree build -- $to_build
    [ "$status" -eq 0 ] || explain IMAGE_BUILD_FAILED "$last"
    effect=changed
    # shellcheck disable=SC2046 # a list
    see_images $(cat "$state/images")
    ask built
    hush keep_built
    [ "$status" -eq 0 ] || explain TASK_FAILED "What was built could not be noted: $last"
}

keep_built() {
    receive "$state/new" && mv -f "$state/new/built" "$state/"
}

pull() {
    begin
    if [ -n "$unavailable" ]; then
        status=1
        explain IMAGE_PULL_FAILED 'Its pull_policy forbids to pull it.'
    fi
    [ -n "$to_pull" ] || return 0
    if ! log_in; then
        status=1
        tell exact yes # otherwise Docker's output of the login would be mistaken for that of a pull
        explain IMAGE_PULL_FAILED "$login_problem"
    fi
    # shellcheck disable=SC2086 # a list
    say compose_tree pull -- $to_pull
    [ "$status" -eq 0 ] || explain IMAGE_PULL_FAILED "$last"
    effect=changed
}

up() {
    if [ -n "$moves" ]; then
        check_files
        [ ! -s "$state/new/move" ] && [ ! -s "$state/new/delete" ] || effect=changed # otherwise only the notes are new
        hush move_files
        [ "$status" -eq 0 ] || explain TASK_FAILED "The files could not be moved into the project: $last"
    fi
    begin
    refuse_exchanged
    status=0 made=
    if [ "$services" -eq 0 ]; then
        say compose down --remove-orphans # Compose's up refuses a project without services
    else
        # Services that Compose would keep come first, with their dependencies; usually, that is all.
        # shellcheck disable=SC2086 # a list
        [ -z "$to_recreate" ] || say compose_model up --detach --no-build --remove-orphans --force-recreate -- $to_recreate
        [ "$status" -ne 0 ] || [ -z "$rest" ] || say compose_model up --detach --no-build --remove-orphans
    fi
    [ "$status" -eq 0 ] || explain TASK_FAILED "$last"
    [ -z "$made$to_recreate" ] || ids= # there may be different containers now
    look || give_up_looking
    looked=yes
    [ "$ids" = "$recalled" ] || printf '%s\n' "$ids" >"$state/ids" # a full disk does not matter here
}

verify() {
    begin
    sweep &
    at_work=$! litter=
    if ! wait_until_well; then
        finish failed
    fi
}
