#!/usr/bin/env bash
# Creates an empty migration, named so that it runs after all others. Behind `make migration name=create_notes`.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! [[ ${1-} =~ ^[a-z][a-z0-9_]*$ ]]; then
    echo 'usage: make migration name=create_notes' >&2
    exit 2
fi

file=migrations/$(date -u +%Y%m%d%H%M%S)_$1.sql
echo '-- Why this is needed, and what still works on the schema before it and after it.' >"$file"
echo "$file"
