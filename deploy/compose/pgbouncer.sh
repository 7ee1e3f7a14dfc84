#!/bin/sh
# PgBouncer's entrypoint: its users from the environment, where Compose has the passwords from `.env`.
set -eu

umask 077
printf '"holdfast" "%s"\n' "$POSTGRES_PASSWORD" >/tmp/users.txt
exec pgbouncer /pgbouncer.ini
