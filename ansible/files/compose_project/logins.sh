# Logins at registries, in a configuration of Docker that is the run's own.
#
# Reads   logins, project, state
# Sets    login_config, login_problem

# Logs in at the registries of the package, in a configuration of docker that is this run's own. False, with
# `login_problem`, when one of them refuses; the others have been logged in at then.
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

# The shell's own printf: a password is in no command line. Docker's warning about files that are not encrypted is of no
# use here, and is told only where the login fails.
hand_over() {
    printf %b "$1" | bounded env DOCKER_CONFIG="$login_config" docker login --username="$2" --password-stdin "$3"
}

# Sets `login_config` to a new copy of docker's configuration. Of what the login has set up all still works: its other
# logins, helpers, contexts and plugins. An empty helper keeps the run's logins out of a store that would outlast the run;
# where an object has a key twice, docker puts both together, and the last one wins.
make_login_config() {
    config=${DOCKER_CONFIG:-$HOME/.docker}
    # Under a name that nobody can guess: others may write there too.
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
            *"$registry"*) helpers="$helpers\"$main\":\"\"," ;; # docker knows its main registry by another name
        esac
        helpers="$helpers\"$registry\":\"\","
    done
    printf '%s"credHelpers":{%s}}\n' "$settings" "${helpers%,}" >"$place/config.json"
} 2>/dev/null
