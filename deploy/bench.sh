#!/usr/bin/env bash
# Behind `make bench`: what the whole stack costs, side by side with bare contenders, written to deploy/bench/RESULTS.md.
# BENCH_ROUNDS and BENCH_SECONDS make it longer or shorter.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(nproc)" -lt 2 ]; then
    echo "bench: two cores are needed, one for the server and one for the load" >&2
    exit 1
fi
if ! command -v wrk >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "bench: please install wrk" >&2
        exit 1
    fi
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    echo "bench: installing wrk with apt-get"
    DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends wrk </dev/null >/dev/null
fi
exec cargo bench --package api --bench stack
