# The files of the package in the project directory: compared, and moved all or none. A container may write there at any
# moment.
#
# Reads   directory, tree, state, delivery, delivered, seeds_size, env_mode
# Sets    link, problem

# Prints which files are not as the manifest has them, which were modified since the last run, and which are missing of
# those that are only created then.
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

# A container may put a pipe in the place of a file at any moment, or a link to what has no end.
check_sums() {
    cd "$directory" && bounded sha256sum -c "$1" 2>/dev/null
}

# Ends the phase where a container has left something else in the place of a file of a manifest.
refuse_links() {
    known= link= place=
    set -f
    IFS=$newline
    # shellcheck disable=SC2013 # `read` would take a system call for each byte
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

# Prints the paths that sha256sum has not found as they should be. False where it gave no answer.
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

# Ends the phase where a container has made a link of what another one is about to mount: Docker would follow it.
refuse_exchanged() {
    [ -f "$state/links" ] || return 0
    while IFS= read -r path; do
        find_link "${path#./}"
        [ -z "$link" ] ||
            fail TASK_FAILED "No container was changed: $link is a symbolic link that a container could have made. Remove it on the host, or mount its target."
    done <"$state/links"
}

# Fails unless each file can be put in its place: either all are moved, or none. A link that a container has left there
# would lead out of the project.
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

# Whether a directory has no files, or none that stay. Where a file to be mounted was missing, Docker has made one.
is_vacant() {
    find "$1" ! -type d | while IFS= read -r file; do
        case $deleted in
            *"$newline./${file#"$directory/"}$newline"*) ;;
            *) exit 1 ;;
        esac
    done
}

# Replaces the package's files in the project, each by a rename: whoever reads a file gets the old one or the new one.
# The notes come first, and the lists of what they take for done: what is known is right wherever this is cut off. As the
# last of their archive they also show that it is whole.
move_files() {
    [ -f "$state/new/notes" ] && (cd "$state/new" && mv -f delete links move model.json notes ..) || return 1
    # A container may have it mounted as a whole; only .env is nobody else's business.
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
    # Also of one that stays: it is readable for containers that mount it, and for nobody else.
    if [ -n "$(find "$directory/.env" -prune \( ! -type f -o ! -perm "$env_mode" \))" ]; then
        mkdir -p "$directory.new" && cp -p "$tree/.env" "$directory.new/" && chmod "$env_mode" "$directory.new/.env" &&
            move_into . "$directory.new/.env" || return 1
    fi
    mv -f "$state/new/manifest" "$state/" && : >"$state/move" && : >"$state/delete"
}

# Moves files of one directory by one program: a program for each would take longer than all the rest.
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

# Moves files into a directory of the project, which is made if need be.
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

# Removes a directory with nothing but directories in it, in the one that `enter` has led to, as `enter` goes: a path of
# several parts could lead elsewhere by now.
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

# Goes into a directory of the project and makes what is missing of it. Each step begins where the one before has led, and
# none goes through a link: whatever a container exchanges meanwhile, the shell stays inside.
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
