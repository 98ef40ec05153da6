# Logins at registries, in a private Docker configuration of the run.
#
# Reads   logins, project, state
# Sets    login_config, login_problem

# Logs in at the registries of the package, in a private Docker configuration of this run. False, with `login_problem`,
# if one of them refuses; the logins at the others have been made nevertheless.
log_in() {
    [ -n "$logins" ] || return 0
    if [ -n "$login_config" ]; then
        [ -z "$login_problem" ]
        return
    fi
    make_login_config || fail TASK_FAILED 'The logins at registries have no place on the host. Is the disk full?'
    left_logins=$logins
    while [ -n "$left_logins" ]; do
        login=${left_logins%%"$newline"*} left_logins=${left_logins#*"$newline"}
        registry=${login%% *} login=${login#* }
        words=$(hand_over "${login%% *}" "${login#* }" "$registry" 2>&1) && continue
        say printf '%s\n' "$words"
        [ -n "$login_problem" ] || login_problem="The login at registry $registry failed: $last"
    done
    [ -z "$login_problem" ]
}

# Uses the shell's built-in printf, so that no command line contains a password. Docker's warning about unencrypted
# files is irrelevant here, and is shown only if the login fails.
hand_over() {
    printf %b "$1" | bounded env DOCKER_CONFIG="$login_config" docker login --username="$2" --password-stdin "$3"
}

# Sets `login_config` to a new copy of Docker's configuration. Everything that the user has set up still works: other
# logins, helpers, contexts, and plugins. An empty helper keeps the run's logins out of a store that would outlast the
# run; if an object has a key twice, Docker merges both values, and the last one wins.
make_login_config() {
    config=${DOCKER_CONFIG:-$HOME/.docker}
    # With a random name, because other users can write there, too.
    if place=$(mktemp -d "/dev/shm/daos.$project.XXXXXXXXXX"); then
        login_config=$place
        printf '%s\n' "$place" >"$state/login.$$" || return 1
    else
        login_config=$state/login.$$ place=$state/login.$$
        mkdir "$place" || return 1
    fi
    for entry in "$config"/* "$config"/.[!.]*; do
        case $entry in
            */config.json) ;;
            *) [ ! -e "$entry" ] || ln -s "$entry" "$place/" || return 1 ;;
        esac
    done
    settings=
    [ ! -f "$config/config.json" ] || settings=$(cat "$config/config.json")
    settings=${settings%"${settings##*[![:space:]]}"}
    [ -n "$settings" ] || settings='{}'
    settings=${settings%?}
    settings=${settings%"${settings##*[![:space:]]}"}
    case $settings in
        '{') ;;
        *) settings=$settings, ;;
    esac
    main=
    case $settings in
        *credsStore*) main=$(bounded docker info --format '{{.IndexServerAddress}}' 2>/dev/null) ;;
    esac
    helpers= left_logins=$logins
    while [ -n "$left_logins" ]; do
        registry=${left_logins%% *} left_logins=${left_logins#*"$newline"}
        case $main in
            *"$registry"*) helpers="$helpers\"$main\":\"\"," ;; # Docker has another name for its main registry
        esac
        helpers="$helpers\"$registry\":\"\","
    done
    printf '%s"credHelpers":{%s}}\n' "$settings" "${helpers%,}" >"$place/config.json"
} 2>/dev/null
