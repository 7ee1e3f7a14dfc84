#!/usr/bin/env bash
# Behind `make alerts`: the alerts and the dashboard are those of deploy/slo.toml, each alert fires when it should and not else, and
# has its page. With --write both are made anew first.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${CARGO_TARGET_DIR:-target}/tools/alerts
files=helm/holdfast/files
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

as_root() { if [[ $EUID == 0 ]]; then "$@"; else sudo "$@"; fi; }

# Debian's package would also start a server, so only what is in it is taken.
find_promtool() {
    if ! type -P promtool; then
        if [[ ! -x $tools/usr/bin/promtool ]]; then
            echo "alerts: fetching promtool into $tools" >&2
            mkdir -p "$tools"
            (cd "$tools" && { apt-get -qq download prometheus || { as_root apt-get -qq update && apt-get -qq download prometheus; }; }) >&2
            dpkg -x "$tools"/prometheus_*.deb "$tools"
            rm "$tools"/prometheus_*.deb
        fi
        echo "$tools/usr/bin/promtool"
    fi
}

type -P python3 >/dev/null || {
    as_root apt-get -qq update
    as_root apt-get -qq install -y --no-install-recommends python3
} </dev/null >&2
python3 -B deploy/alerts/rules.py >"$made/alerts.yaml"
python3 -B deploy/alerts/dashboard.py >"$made/dashboard.json"
for file in alerts.yaml dashboard.json; do
    if [[ ${1:-} == --write ]]; then
        cp "$made/$file" "$files/$file"
    elif ! diff -u "$files/$file" "$made/$file" | head -n 20; then
        echo "alerts: $files/$file is not what deploy/alerts makes: run deploy/alerts/check.sh --write" >&2
        exit 1
    fi
done

promtool=$(find_promtool)
"$promtool" check rules "$files/alerts.yaml"
python3 -B deploy/alerts/cases.py "$made"
for tests in "$made"/cases-*.json; do
    "$promtool" test rules "$tests" >"$tests.log" 2>&1 &
done
failed=0
for tests in "$made"/cases-*.json; do
    wait -n || failed=1
done
((failed == 0)) || { cat "$made"/*.log >&2; exit 1; }
echo "alerts: every one fires when it should and not else"
