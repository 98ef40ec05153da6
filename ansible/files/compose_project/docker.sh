# Runs Docker and Compose, and queries images and versions.
#
# Reads   project, directory, tree, state, override, login_config
# Sets    plugin

# Sets `plugin` to Compose's own program, at the paths where Docker expects it: Docker queries each of its plugins
# before it starts one, which takes longer than all of Compose's work. Empty if only Docker can find it.
find_plugin() {
    plugin=
    config=${DOCKER_CONFIG:-$HOME/.docker}
    if [ -f "$config/config.json" ]; then
        read_all "$config/config.json"
        case $text in
            *cliPluginsExtraDirs*) return ;;
        esac
    fi
    for place in "$config" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker; do
        plugin=$place/cli-plugins/docker-compose
        [ ! -x "$plugin" ] || return 0
    done
    plugin=
}

# Compose does not inherit the login's environment, which would override .env, and COMPOSE_FILE the package. PWD is the
# value of `${PWD}` in a Compose file: the directory that Compose reads.
compose() {
    set -- --project-name "$project" --ansi never "$@"
    [ -n "$plugin" ] || set -- compose "$@"
    bounded env -i HOME="$HOME" PATH="$PATH" PWD="$tree" \
        ${DOCKER_HOST+"DOCKER_HOST=$DOCKER_HOST"} ${DOCKER_CONTEXT+"DOCKER_CONTEXT=$DOCKER_CONTEXT"} \
        ${DOCKER_CONFIG+"DOCKER_CONFIG=$DOCKER_CONFIG"} ${login_config:+"DOCKER_CONFIG=$login_config"} \
        ${DOCKER_CERT_PATH+"DOCKER_CERT_PATH=$DOCKER_CERT_PATH"} \
        ${DOCKER_TLS_VERIFY+"DOCKER_TLS_VERIFY=$DOCKER_TLS_VERIFY"} \
        ${XDG_RUNTIME_DIR+"XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR"} ${SSH_AUTH_SOCK+"SSH_AUTH_SOCK=$SSH_AUTH_SOCK"} \
        "${plugin:-docker}" "$@"
}

# Runs Compose on the delivered files.
compose_tree() {
    compose --project-directory "$tree" --env-file "$tree/.env" --file "$tree/compose.yaml" \
        ${override:+--file "$tree/$override"} "$@"
}

# Runs Compose on the model that the server derived from the resolution of the delivered files.
compose_model() {
    compose --project-directory "$directory" --file "$state/model.json" --env-file "$tree/.env" "$@"
}

require_docker() {
    if ! bounded docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
        say bounded docker version --format '{{.Server.Version}}'
        last=${last:-The Docker daemon does not answer.}
        case $last in
            *[.?]) ;;
            *) last=$last. ;;
        esac
        fail DOCKER_UNAVAILABLE "$last See that the daemon runs, and that the host's user may use it (group docker)."
    fi
    [ -n "$plugin" ] || bounded docker compose version >/dev/null 2>&1 ||
        fail DOCKER_UNAVAILABLE 'The Compose plugin was not found on the host; install version 2.26 or newer.'
}

# Prints the names of images, the ids of those that exist, in the same order, and those that do not exist.
see_images() {
    echo "= names $*"
    [ "$#" -gt 0 ] || return 0
    { absent=$(bounded docker image inspect --format '= image {{.ID}}' "$@" 2>&1 >&5); } 5>&1
    [ -z "$absent" ] || while IFS= read -r line; do
        tell absent "$line"
    done <<ABSENT
$absent
ABSENT
}

# Prints the versions of Docker and Compose. They are cached until a program has been replaced: querying them each time
# would take longer than the rest of a run that changes nothing.
see_versions() {
    # shellcheck disable=SC2046 # empty if there is no dockerd on this machine
    programs=$(stat -c '%n %i %Y %s' "$(command -v docker)" $(command -v dockerd) ${plugin:+"$plugin"})
    programs="${DOCKER_HOST:-} ${DOCKER_CONTEXT:-} $programs"
    known=$HOME/.daos/versions
    if [ -f "$known" ] && read_all "$known" && [ "${text#*"$newline= "}" != "$text" ]; then
        asked=${text%%"$newline= "*}
        if [ "$asked" = "$programs" ]; then
            printf '= %s' "${text#*"$newline= "}"
            return
        fi
    fi
    reports=$(ask_versions)
    printf '%s\n' "$reports"
    case $reports in
        *'= docker '[0-9]*'= compose '[v0-9]*) printf '%s\n' "$programs" "$reports" >"$known.$$" && mv -f "$known.$$" "$known" ;;
    esac
}

ask_versions() {
    tell docker "$(bounded docker version --format '{{.Server.Version}}')"
    if [ -n "$plugin" ]; then
        tell compose "$(bounded "$plugin" version --short)"
    else
        tell compose "$(bounded docker compose version --short)"
    fi
}
