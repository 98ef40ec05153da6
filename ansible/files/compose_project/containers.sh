# The containers of the project: their list, their state, and the owner of the project.
#
# Reads   project, directory, state, deployment, installation, rivals
# Sets    listing, ids, one_offs, stranger, looked

# Sets `ids` to the containers of the project's services, `one_offs` to those of `compose run`, and `stranger` to the
# directory of another project of the same name: --remove-orphans would delete its containers. Containers without
# Compose's hash were not created by Compose, which ignores them, too.
list_containers() {
    listing=$(bounded docker ps --all --no-trunc --filter "label=com.docker.compose.project=$project" --format \
        '{{.ID}}|{{.Label "com.docker.compose.config-hash"}}|{{.Label "com.docker.compose.oneoff"}}|{{.Label "com.docker.compose.project.working_dir"}}' \
        2>/dev/null) || return 1
    read_listing
}

read_listing() {
    ids= one_offs= stranger=
    while IFS='|' read -r id hash one_off place; do
        [ -n "$hash" ] || continue
        if [ "$place" != "$directory" ] && ! [ "$place" -ef "$directory" ]; then
            stranger=${place:-unknown}
            continue
        fi
        case $one_off in
            True) one_offs="$one_offs $id" ;;
            *) ids="$ids $id" ;;
        esac
    done <<LISTING
$listing
LISTING
}

# Prints a line for each container of a service, with its description and state at one moment.
# shellcheck disable=SC2016 # Go's templates have a `$` of their own
inspect() {
    facts='= container {"id":{{json .ID}},"name":{{json .Name}},"hash":{{json (index .Config.Labels "com.docker.compose.config-hash")}}'
    facts=$facts',"service":{{json (index .Config.Labels "com.docker.compose.service")}},"image":{{json .Config.Image}}'
    facts=$facts',"imageId":{{json .Image}},"state":{{json .State.Status}},"exitCode":{{.State.ExitCode}}'
    facts=$facts',"oomKilled":{{.State.OOMKilled}},"restarts":{{.RestartCount}},"startedAt":{{json .State.StartedAt}}'
    facts=$facts',"policy":{{json .HostConfig.RestartPolicy.Name}},"health":{{with .State.Health}}'
    facts=$facts'{{$at := "\"\""}}{{$words := ""}}{{$code := 0}}'
    facts=$facts'{{range .Log}}{{$at = json .Start}}{{$words = .Output}}{{$code = .ExitCode}}{{end}}'
    facts=$facts'{"status":{{json .Status}},"checkedAt":{{$at}}'
    facts=$facts',"output":{{json (printf "%.500s" $words)}},"exitCode":{{$code}}}{{else}}null{{end}}'
    facts=$facts',"healthcheck":{{with .Config.Healthcheck}}{"interval":{{json .Interval}},"timeout":{{json .Timeout}}'
    facts=$facts',"retries":{{.Retries}},"startPeriod":{{json .StartPeriod}}}{{else}}null{{end}}'
    facts=$facts',"ports":[{{range $port, $all := .NetworkSettings.Ports}}{{range $all}}'
    facts=$facts'{{json (printf "%s:%s->%s" .HostIP .HostPort $port)}},{{end}}{{end}}""]}'
    # shellcheck disable=SC2086 # a list
    bounded docker inspect --type container --format "$facts" $ids 2>/dev/null
}

# Prints the project's containers. Known ids are inspected first, because they are usually still valid.
look() {
    echo '= containers'
    [ -z "$ids" ] || ! inspect || return 0
    list_containers || return 1
    echo '= containers'
    [ -z "$ids" ] || inspect
}

give_up_looking() {
    require_docker
    ! is_late || fail_late
    fail TASK_FAILED "Docker did not list the containers of project '$project'."
}

show_logs() {
    while read -r id name; do
        [ -n "$id" ] || continue
        prefix="$name | "
        say bounded docker logs --tail 20 "$id"
        prefix=
    done <<TROUBLED
$reply_log
TROUBLED
}

refuse_rivals() {
    owner= owner_installation=
    [ ! -f "$state/owner" ] || read -r owner owner_installation <"$state/owner"
    if [ -n "$owner_installation" ] && [ "$owner_installation" != "$installation" ]; then
        words="Project '$project' on this host belongs to another installation of daos (deployment $owner of installation"
        words="$words $owner_installation). Take it down there; if that installation is gone, delete $state/owner on the host."
        fail TASK_FAILED "$words"
    fi
    case $rivals in
        *" ${owner:-nobody} "*) fail TASK_FAILED "Project '$project' on this host belongs to deployment $owner." ;;
    esac
}

refuse_strangers() {
    [ -z "$stranger" ] || fail TASK_FAILED "Project '$project' on this host belongs to the directory $stranger."
}

# Has the server judge the containers until it has decided. False, with `reason` and `detail`, if they are not well.
wait_until_well() {
    tell time "$(date -u +%Y-%m-%dT%H:%M:%S)" # how long a container has been steady that was restarted before
    while :; do
        if [ -z "$looked" ]; then
            tick
            deadline=$((now + 3000)) # of this inspection; the server decides when the time is up
            look || give_up_looking
        fi
        looked=
        ask verdict
        case $reply_verdict in
            ok) return 0 ;;
            wait) sleep "$reply_wait" ;;
            *)
                give_reason
                return 1
                ;;
        esac
    done
}
