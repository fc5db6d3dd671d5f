#!/bin/sh
# New passwords for deploy/compose.yaml, once: into deploy/.env, which Docker Compose reads by itself.
#
# They are asked for when the volumes are made; a changed one no longer fits. So an .env that is there stays.
set -eu
cd "$(dirname "$0")"

if [ -e .env ]; then
    echo "deploy/.env is there already, and stays as it is."
    exit
fi
# Letters and digits alone, because one of them is part of a URL.
secret() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
cat >.env.new <<END
# Of deploy/compose.yaml. Keep it with the backups; it is not in the repository.
POSTGRESQL_PASSWORD=$(secret)
S3_SECRET_ACCESS_KEY=$(secret)
END
mv .env.new .env
echo "deploy/.env has new passwords, readable for you alone. Keep a copy of it with the backups."
