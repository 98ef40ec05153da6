#!/bin/sh
# A first deployment through the API of a running daos, on the machine that daos runs on:
#
#   examples/hello/deploy.sh            creates image, host, package, and deployment, runs it, and follows its log
#   examples/hello/deploy.sh down       takes it down
#
# DAOS_URL      [http://127.0.0.1:8000]
# DAOS_TOKEN    [the one in data/admin-token]
# PROJECT, PORT [hello, 8088] of the Compose project, and where its page is served
# shellcheck disable=SC2016 # `$` in single quotes is GraphQL's
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
url=${DAOS_URL:-http://127.0.0.1:8000}/graphql
token=${DAOS_TOKEN:-$(cat "$here/../../data/admin-token")}
project=${PROJECT:-hello} port=${PORT:-8088}

# Sends an operation and prints its answer; an error ends the script.
ask() {
    answer=$(curl -sS -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d "$1" "$url")
    case $answer in
        *'"errors"'*) printf '%s\n' "$answer" >&2 && exit 1 ;;
    esac
    printf '%s\n' "$answer"
}

# The id in an answer.
id_of() {
    found=$(ask "$1") || exit 1
    printf '%s\n' "$found" | sed 's/.*"id": *"\([^"]*\)".*/\1/'
}

# Server-sent events, until the subscription ends.
follow() {
    curl -sSN -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -H 'Accept: text/event-stream' -d "$1" "$url"
}

# A file as the content of a JSON string.
escaped() {
    sed 's/\\/\\\\/g; s/"/\\"/g' "$1" | awk '{ printf "%s\\n", $0 }'
}

if [ "${1:-up}" = down ]; then
    all=$(ask '{"query": "{ deployments(first: 100) { nodes { id projectName } } }"}')
    deployment=$(printf '%s' "$all" | tr '{' '\n' | sed -n "s/.*\"id\": *\"\\([^\"]*\\)\".*\"projectName\": *\"$project\".*/\\1/p")
    ask '{"query": "mutation($input: RunDeploymentInput!) { runDeployment(input: $input) { run { id } } }", "variables": {"input": {"deploymentId": "'"$deployment"'", "action": "DOWN"}}}'
    exit
fi

# busybox from Debian's package busybox-static: it needs no registry.
docker image inspect hello:1 >/dev/null 2>&1 || "$here/image" | docker import - hello:1

host=$(id_of '{"query": "mutation($input: CreateHostInput!) { createHost(input: $input) { host { id } } }", "variables": {"input": {"name": "here", "transport": "LOCAL"}}}')
package=$(id_of '{"query": "mutation($input: CreatePackageInput!) { createPackage(input: $input) { package { id } } }", "variables": {"input": {"name": "hello", "version": "1", "composeFile": "'"$(escaped "$here/compose.yaml")"'", "files": [{"path": "site/index.html", "content": "'"$(escaped "$here/site/index.html")"'"}]}}}')
deployment=$(id_of '{"query": "mutation($input: CreateDeploymentInput!) { createDeployment(input: $input) { deployment { id } } }", "variables": {"input": {"hostId": "'"$host"'", "packageId": "'"$package"'", "projectName": "'"$project"'", "variables": [{"name": "IMAGE", "value": "hello:1"}, {"name": "PORT", "value": "'"$port"'"}]}}}')
run=$(id_of '{"query": "mutation($input: RunDeploymentInput!) { runDeployment(input: $input) { run { id } } }", "variables": {"input": {"deploymentId": "'"$deployment"'", "action": "UP"}}}')
follow '{"query": "subscription($runId: ID!) { runLog(runId: $runId) { complete entries { phase message } } }", "variables": {"runId": "'"$run"'"}}'
ask '{"query": "query($id: ID!) { run(id: $id) { status reason message containers { name state health exitCode } } }", "variables": {"id": "'"$run"'"}}'
curl -sS "http://127.0.0.1:$port/"
