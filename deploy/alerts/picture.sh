#!/usr/bin/env bash
# Makes deploy/dashboard.png: a service and a worker under some minutes of load, Debian's Prometheus beside them, and the dashboard's
# own queries drawn without Grafana. Run as `target/debug/devstack exec -- deploy/alerts/picture.sh`, after `make build`.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${CARGO_TARGET_DIR:-target}/tools
holdfast=${CARGO_TARGET_DIR:-target}/debug/holdfast
work=$(mktemp -d)
pids=()
finish() { kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$work"; }
trap finish EXIT

prometheus=$(command -v prometheus || echo "$tools/alerts/usr/bin/prometheus")
[[ -x $prometheus ]] || { echo 'picture: run `make alerts` first, it fetches Prometheus' >&2; exit 1; }
if [[ ! -x $tools/picture/bin/python ]]; then
    python3 -m venv "$tools/picture"
    "$tools/picture/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: matplotlib==3.10.7
fi

export HOLDFAST__LIMITS__ADDRESS_READ=1000000/1m HOLDFAST__LIMITS__ADDRESS_WRITE=1000000/1m
export HOLDFAST__LIMITS__USER_READ=1000000/1m HOLDFAST__LIMITS__USER_WRITE=1000000/1m HOLDFAST__JOBS__DEPTH_INTERVAL=1s
# Little at once, so that one machine can be too little.
export HOLDFAST_PROFILE=dev HOLDFAST__ADMISSION__LIMIT_MAX=12 HOLDFAST__ADMISSION__LIMIT_INITIAL=12
"$holdfast" migrate
"$holdfast" seed --products 5000 --dev-accounts
HOLDFAST__HTTP__LISTEN=127.0.0.1:18480 HOLDFAST__GRPC__LISTEN=127.0.0.1:18482 HOLDFAST__ADMIN__LISTEN=127.0.0.1:19480 \
    "$holdfast" serve >"$work/serve.log" 2>&1 &
pids+=($!)
HOLDFAST__ADMIN__LISTEN=127.0.0.1:19481 "$holdfast" work >"$work/work.log" 2>&1 &
pids+=($!)
cat >"$work/prometheus.yml" <<END
global: {scrape_interval: 2s, evaluation_interval: 5s}
rule_files: ["$PWD/helm/holdfast/files/alerts.yaml"]
scrape_configs:
  - job_name: holdfast
    static_configs:
      - targets: ["127.0.0.1:19480", "127.0.0.1:19481"]
END
"$prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address=127.0.0.1:19490 \
    >"$work/prometheus.log" 2>&1 &
pids+=($!)
"$tools/picture/bin/python" -B deploy/alerts/load.py http://127.0.0.1:18480 "$HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL"
"$tools/picture/bin/python" -B deploy/alerts/picture.py http://127.0.0.1:19490 deploy/dashboard.png
