# Compares the files of the package with those in the project directory, and moves them, all or none. A container may
# write there at any moment.
#
# Reads   directory, tree, state, delivery, delivered, seeds_size, env_mode
# Sets    link, problem

# Prints which files differ from the manifest, which were modified since the last run, and which of the files that are
# created only if they are missing are missing.
compare_files() {
    if [ ! -d "$directory" ]; then
        echo '= changed *'
        return 0
    fi
    differs=
    refuse_links "$state/new/manifest"
    if ! changes=$(check_sums "$state/new/manifest"); then
        tell_failed changed "$changes" || return 1
        differs=yes
    fi
    if [ -f "$state/manifest" ] && [ "$differs$delivered" != "$delivery" ]; then
        refuse_links "$state/manifest"
        changes=$(check_sums "$state/manifest") || tell_failed modified "$changes"
    fi
    [ "$seeds_size" -eq 0 ] || while IFS= read -r path; do
        [ -e "$directory/$path" ] || tell missing "$path"
    done <"$state/new/seeds"
}

# A container may replace a file by a pipe at any moment, or by a link to an endless file.
check_sums() {
    cd "$directory" && bounded sha256sum -c "$1" 2>/dev/null
}

# Fails the phase if a container has left something else in place of a file of a manifest.
refuse_links() {
    known= link= place=
    set -f
    IFS=$newline
    # shellcheck disable=SC2013 # `read` would make a system call for each byte
    for path in $(sed 's/^[^ ]*  //' "$1"); do
        place=$directory/${path#./}
        if [ "${place%/*}" = "$known" ]; then
            [ ! -L "$place" ] || link=$place
        else
            known=${place%/*}
            find_link "${path#./}"
        fi
        [ -z "$link" ] || break
        [ ! -e "$place" ] || [ -f "$place" ] || [ -d "$place" ] || break
        place=
    done
    unset IFS
    set +f
    [ -z "$link" ] || place="$link is a symbolic link, which daos does not follow"
    [ -n "$link" ] || place=${place:+"$place is not a regular file"}
    [ -z "$place" ] || fail TASK_FAILED "No file was replaced: $place. Remove it on the host."
}

# Sets `link` to the first part of a path in the project directory that is a symbolic link.
find_link() {
    part=$directory left=$1/ link=
    while [ -n "$left" ]; do
        part=$part/${left%%/*} left=${left#*/}
        [ ! -L "$part" ] || { link=$part && return; }
    done
}

# Prints the paths for which sha256sum has reported a failure. False if it has reported none.
tell_failed() {
    any=
    while IFS= read -r line; do
        case $line in
            *': FAILED' | *': FAILED open or read')
                any=yes path=${line%': FAILED'*}
                [ "$1" = changed ] || [ ! -e "$directory/$path" ] || tell "$1" "$path"
                [ "$1" = modified ] || tell "$1" "$path"
                ;;
        esac
    done <<FAILED
$2
FAILED
    [ -n "$any" ]
}

# Fails the phase if a container has replaced a path that another one is about to mount by a link: Docker would follow
# it.
refuse_exchanged() {
    [ -f "$state/links" ] || return 0
    while IFS= read -r path; do
        find_link "${path#./}"
        [ -z "$link" ] ||
            fail TASK_FAILED "No container was changed: $link is a symbolic link that a container could have made. Remove it on the host, or mount its target."
    done <"$state/links"
}

# Fails unless each file can be moved to its place: either all are moved, or none. A link that a container has left
# there could lead out of the project.
check_files() {
    problem=
    deleted=$newline
    [ ! -s "$state/new/delete" ] || deleted=$newline$(cat "$state/new/delete")$newline
    while IFS= read -r path; do
        if [ -n "$path" ] && ! check_file "$path"; then break; fi
    done <<PATHS
$deleted$(cat "$state/new/move")
PATHS
    [ -z "$problem" ] || fail TASK_FAILED "No file was replaced: $problem."
}

check_file() {
    place=$directory left=${1#./}
    while :; do
        [ ! -d "$place" ] || [ -w "$place" ] || break
        place=$place/${left%%/*}
        if [ -L "$place" ]; then
            problem="$place is a symbolic link, which daos does not follow. Remove it on the host"
            return 1
        fi
        case $left in
            */*) left=${left#*/} ;;
            *)
                [ ! -d "$place" ] || is_vacant "$place" && return
                problem="$place is a directory with files in it. Remove or rename it on the host"
                return 1
                ;;
        esac
        case $deleted in
            *"$newline./${place#"$directory/"}$newline"*) ;;
            *)
                if [ -e "$place" ] && [ ! -d "$place" ]; then
                    problem="$place is a file where the package has a directory. Remove or rename it on the host"
                    return 1
                fi
                ;;
        esac
    done
    problem="the directory $place belongs to user $(stat -c %U "$place"), and daos cannot write to it. If a container"
    problem="$problem has taken it, give it back on the host (chown), or leave the files in it out of the package"
    return 1
}

# Whether a directory has no files, except those that are to be deleted. Docker creates a directory for a missing file
# that is to be mounted.
is_vacant() {
    find "$1" ! -type d | while IFS= read -r file; do
        case $deleted in
            *"$newline./${file#"$directory/"}$newline"*) ;;
            *) exit 1 ;;
        esac
    done
}

# Replaces the package's files in the project, each by a rename: a reader of a file gets either the old or the new one.
# The notes are moved first, with the lists of the files that they assume to be moved and deleted, so that the notes are
# correct wherever this is cut off. As the last file in their archive, they also show that it is complete.
move_files() {
    [ -f "$state/new/notes" ] && (cd "$state/new" && mv -f delete links move model.json notes ..) || return 1
    # A container may mount the whole directory; only .env is private.
    [ -d "$directory" ] || mkdir -m 755 "$directory" || return 1
    while IFS= read -r path; do
        [ -z "$path" ] || [ ! -e "$directory/$path" ] || (enter "${path%/*}" && rm -f "./${path##*/}") || return 1
    done <"$state/delete"
    if [ -s "$state/move" ]; then
        [ ! -e "$directory.new" ] || rm -rf "$directory.new" || return 1
        cp -Rp "$tree" "$directory.new" || return 1
        [ ! -f "$directory.new/.env" ] || chmod "$env_mode" "$directory.new/.env" || return 1
        move_listed || return 1
    fi
    # Also if it was not moved: it must be readable for containers that mount it, and for nobody else.
    if [ -n "$(find "$directory/.env" -prune \( ! -type f -o ! -perm "$env_mode" \))" ]; then
        mkdir -p "$directory.new" && cp -p "$tree/.env" "$directory.new/" && chmod "$env_mode" "$directory.new/.env" &&
            move_into . "$directory.new/.env" || return 1
    fi
    mv -f "$state/new/manifest" "$state/" && : >"$state/move" && : >"$state/delete"
}

# Moves the files of each directory with one program: a program for each file would take longer than all the rest.
move_listed() {
    parent=
    set --
    while IFS= read -r path; do
        [ -n "$path" ] || continue
        if [ "$parent" != "${path%/*}" ]; then
            move_into "$parent" "$@" || return 1
            parent=${path%/*}
            set --
        fi
        set -- "$@" "$directory.new/$path"
    done <"$state/move"
    move_into "$parent" "$@"
}

# Moves files into a directory of the project, which is created if it is missing.
move_into() (
    [ "$#" -gt 1 ] || return 0
    enter "$1" || return 1
    shift
    for file in "$@"; do
        name=./${file##*/}
        [ ! -d "$name" ] || [ -L "$name" ] || remove_vacant "${name#./}" || return 1
    done
    mv -f "$@" ./
)

# Removes a directory that contains only directories, below the one that `enter` has entered, step by step like `enter`:
# a path of several parts could lead elsewhere by now.
remove_vacant() {
    (
        cd -P "./$1" || exit 1
        [ "$PWD" = "$here/$1" ] || exit 1
        here=$PWD
        for entry in * .[!.]* ..?*; do
            [ ! -d "$entry" ] || [ -L "$entry" ] || remove_vacant "$entry" || exit 1
        done
    ) && rmdir "./$1"
}

# Changes to a directory of the project, and creates its missing parts. Each step starts from the previous one, and none
# follows a link: whatever a container replaces meanwhile, the shell stays inside the project.
enter() {
    cd -P "$directory" || return 1
    here=$PWD left=$1/
    while [ -n "$left" ]; do
        step=${left%%/*} left=${left#*/}
        [ "$step" != . ] || continue
        [ -d "./$step" ] || mkdir -m 755 "./$step" || return 1
        cd -P "./$step" || return 1
        if [ "$PWD" != "$here/$step" ]; then
            echo "$here/$step is a symbolic link, which daos does not follow" >&2
            return 1
        fi
        here=$PWD
    done
}
