#!/usr/bin/env bash
# Behind `make run`, inside `devstack exec`, which names the servers in the environment: the schema, the data, then
# the service in the foreground.
set -euo pipefail
cd "$(dirname "$0")/.."
holdfast=${CARGO_TARGET_DIR:-target}/debug/holdfast
api=http://${HOLDFAST__HTTP__LISTEN:-127.0.0.1:8080}
admin=http://${HOLDFAST__ADMIN__LISTEN:-127.0.0.1:9090}

"$holdfast" migrate
"$holdfast" seed --products 10000 --dev-accounts
cat <<END
serve: $api/v1/products  $api/docs
serve: $admin/ready  $admin/metrics  $admin/status
serve: Ctrl-C ends it, and the servers with it
END
exec "$holdfast" serve
