#!/bin/sh
# Creates the missing secrets of compose.yaml, and the directory for SSH keys.
# Run as root: each file must be owned by the user that reads it in a container.
set -eu
umask 077
CDPATH='' cd -- "$(dirname -- "$0")"
daos=10001    # the user in the Dockerfile
postgres=999  # the user of PostgreSQL's image

random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }
word() { random | tr -d '='; }
make() {
    if [ ! -e "secrets/$1" ]; then
        cat >"secrets/$1.new"
        chown "$2" "secrets/$1.new"
        chmod 0400 "secrets/$1.new"
        mv "secrets/$1.new" "secrets/$1"
    fi
}

mkdir -p secrets ssh
chown "$daos" ssh
echo "daos_$(word)" | make admin-token "$daos"
echo "$(word | head -c 8) $(random)" | make secret-key "$daos"
word | make postgres-password "$postgres"
echo "postgres:*:daos:daos:$(cat secrets/postgres-password)" | make pgpass "$daos"
