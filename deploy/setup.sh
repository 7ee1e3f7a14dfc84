#!/bin/sh
# Installs the servers that devstack runs, where this machine lacks them: Postgres 15 to 18 and Redis or Valkey.
# `make setup` calls it. Silent when nothing is missing; it never starts a server or creates a cluster.
# Only some tests need a PgBouncer, an Envoy or a HAProxy, so a machine that cannot have one is told so and set up all the same.
set -eu

# Debian, the PostgreSQL project's own packages and Homebrew keep the servers off PATH.
postgres_folders() {
    command -v postgres | sed 's|/postgres$||'
    ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
        /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin
}

has_postgres() {
    if [ -n "${HOLDFAST_DEVSTACK_PG_BIN:-}" ]; then return 0; fi
    for bin in $(postgres_folders 2>/dev/null); do
        [ -x "$bin/initdb" ] && [ -x "$bin/pg_basebackup" ] || continue
        case "$("$bin/postgres" --version)" in *\ 1[5-8].* | *\ 1[5-8]) return 0 ;; esac
    done
    return 1
}

has_redis() {
    [ -n "${HOLDFAST_DEVSTACK_REDIS_SERVER:-}" ] || command -v redis-server >/dev/null || command -v valkey-server >/dev/null ||
        [ -x /opt/homebrew/bin/redis-server ] || [ -x /usr/local/bin/redis-server ]
}

has_haproxy() {
    command -v haproxy >/dev/null
}

missing() {
    has_postgres || printf ' %s' "$1"
    has_redis || printf ' %s' "$2"
}

# A package's first configuration starts its server, and Postgres also makes a cluster. Both are refused for the
# length of this run, and what stood there before comes back whatever happens.
forbid_servers() {
    policy=/usr/sbin/policy-rc.d
    cluster=/etc/postgresql-common/createcluster.d/holdfast.conf
    trap 'restore' EXIT
    trap 'exit 1' HUP INT TERM
    if [ -e "$policy" ] && [ ! -e "$policy.holdfast" ]; then $sudo mv "$policy" "$policy.holdfast"; fi
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
    $sudo mkdir -p "${cluster%/*}"
    echo 'create_main_cluster = false' | $sudo tee "$cluster" >/dev/null
}

restore() {
    $sudo rm -f "$policy" "$cluster"
    if [ -e "$policy.holdfast" ]; then $sudo mv "$policy.holdfast" "$policy"; fi
}

install_with_apt() {
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "setup: run as root: apt-get install --no-install-recommends$1" >&2; exit 1; }
        sudo=sudo
    fi
    echo "setup: installing$1 with apt-get; no server is started"
    forbid_servers
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120"
    $apt update </dev/null
    # The word splitting of the package list is meant.
    # shellcheck disable=SC2086
    $apt install -y --no-install-recommends $1 </dev/null >/dev/null
    # Debian enables the units, which would start the servers at the next boot.
    case "$1" in *redis*) $sudo systemctl disable --quiet redis-server 2>/dev/null || true ;; esac
    case "$1" in *haproxy*) $sudo systemctl disable --quiet haproxy 2>/dev/null || true ;; esac
}

finish() {
    has_haproxy || echo "setup: without HAProxy (please install it), the tests behind a balancer will fail" >&2
    "$(dirname "$0")/pgbouncer.sh" || echo "setup: without PgBouncer, the tests behind a pooler will fail" >&2
    "$(dirname "$0")/envoy.sh" || echo "setup: without Envoy, the test through a balancer will fail" >&2
    exit 0
}

packages=$(missing postgresql redis-server)
if command -v apt-get >/dev/null && ! has_haproxy; then packages="$packages haproxy"; fi
[ -n "$packages" ] || finish

if command -v apt-get >/dev/null; then
    install_with_apt "$packages"
    packages=$(missing postgresql redis-server)
    [ -n "$packages" ] || finish
    echo "setup: still missing:$packages. Postgres 15 to 18 is needed; see https://wiki.postgresql.org/wiki/Apt" >&2
elif command -v brew >/dev/null; then
    echo "setup: please run: brew install$(missing postgresql@17 redis)" >&2
elif command -v dnf >/dev/null; then
    echo "setup: please run: sudo dnf install$(missing 'postgresql-server postgresql-contrib' valkey)" >&2
elif command -v apk >/dev/null; then
    echo "setup: please run: sudo apk add$(missing 'postgresql17 postgresql17-contrib' redis)" >&2
else
    echo "setup: please install$(missing 'Postgres 15 to 18,' 'Redis or Valkey')" >&2
fi
exit 1
