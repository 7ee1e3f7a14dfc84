#!/usr/bin/env bash
# Writes .sqlx/ anew: what Postgres says about every statement in the code, so that a build needs no database.
# With --check it changes nothing and fails when something would change. Runs inside `devstack exec`, which gives an
# empty database in DATABASE_URL.
set -euo pipefail
cd "$(dirname "$0")/.."

# Not by `holdfast migrate`: the service does not compile while a statement is new.
for file in migrations/*.sql; do
    transaction=--single-transaction
    if [[ $(head -n 1 "$file") == '-- no-transaction'* ]]; then transaction=; fi
    psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 ${transaction:+"$transaction"} --file "$file" "$DATABASE_URL"
done

# The macros describe their statements while they are compiled, and write what they learn into this folder. Touched,
# because cargo does not know that the database is an input too.
fresh=$PWD/${CARGO_TARGET_DIR:-target}/sqlx
rm -rf "$fresh" && mkdir -p "$fresh"
grep --recursive --files-with-matches --null --include='*.rs' 'sqlx::query[a-z_]*!' crates | xargs --null touch
SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh cargo build --workspace --bins --test walls --quiet

if [[ ${1-} == --check ]]; then
    diff --recursive --brief .sqlx "$fresh" || { echo '.sqlx/ is out of date: run `make sql` and commit it' >&2 && exit 1; }
else
    rm -rf .sqlx && cp -r "$fresh" .sqlx
fi
echo "$(find "$fresh" -name '*.json' | wc -l) statements"
