#!/usr/bin/env bash
# Behind `make run`, inside `devstack exec`, which names the servers in the environment: the schema, the data, then
# the service in the foreground.
set -euo pipefail
cd "$(dirname "$0")/.."
holdfast=${CARGO_TARGET_DIR:-target}/debug/holdfast

"$holdfast" migrate
"$holdfast" seed --products 10000 --dev-accounts
exec "$holdfast" serve
