#!/usr/bin/env bash
# Behind `make workflows`: actionlint, with shellcheck for what the workflows run, and that each action is a commit, not a tag that moves.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/tools/workflows

if ! cmp --silent deploy/workflows.txt "$tools/installed.txt"; then
    echo "workflows: installing actionlint into $tools" >&2
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt="$([[ $EUID == 0 ]] || echo sudo) env DEBIAN_FRONTEND=noninteractive apt-get -qq"
        $apt update </dev/null
        $apt install -y --no-install-recommends python3-venv </dev/null >&2
    fi
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement deploy/workflows.txt
    cp deploy/workflows.txt "$tools/installed.txt"
fi

"$tools/bin/actionlint" -shellcheck "$tools/bin/shellcheck"
[[ ! -x $tools/bin/shellcheck ]] || "$tools/bin/shellcheck" deploy/e2e.sh deploy/workflows.sh deploy/alerts/check.sh
files=(.github/workflows/*.yml)
if grep -nE '^ *(- )?uses:' "${files[@]}" | grep -vE '@[0-9a-f]{40} # v[0-9]+(\.[0-9]+)*$'; then
    echo 'workflows: the above is not pinned as owner/action@COMMIT # vX.Y.Z' >&2
    exit 1
fi
echo "workflows: ${#files[@]} are sound, $(grep -hoE 'uses: .*' "${files[@]}" | sort -u | wc -l) actions are pinned"
