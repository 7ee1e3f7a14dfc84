#!/bin/sh
# Provides the PgBouncer that tests of pooled connections start: one of 1.21 or newer that is installed, or else one
# built into target/pgbouncer from Debian's source package. `make setup` calls it. Silent when nothing is missing.
set -eu
cd "$(dirname "$0")/.."
folder=${CARGO_TARGET_DIR:-target}/pgbouncer

# Before 1.21 a named prepared statement is lost with the server connection, and Debian 12 has 1.18.
is_fit() {
    version=$("$1" --version 2>/dev/null | sed -n 's/^PgBouncer //p')
    major=${version%%.*} minor=${version#*.}
    [ -n "$version" ] && { [ "$major" -gt 1 ] || [ "${minor%%.*}" -ge 21 ]; }
}

for program in "${HOLDFAST_DEVSTACK_PGBOUNCER:-}" "$folder/pgbouncer" "$(command -v pgbouncer || true)" \
    /usr/sbin/pgbouncer /opt/homebrew/bin/pgbouncer /usr/local/bin/pgbouncer; do
    if [ -x "$program" ] && is_fit "$program"; then exit 0; fi
done

if ! command -v apt-get >/dev/null; then
    echo "setup: for the tests behind a pooler please install PgBouncer 1.21 or newer, such as: brew install pgbouncer" >&2
    exit 1
fi

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages=
[ -e /usr/include/event2/event.h ] || packages="$packages libevent-dev"
command -v pkg-config >/dev/null || packages="$packages pkg-config"
[ -e "$keyring" ] || packages="$packages debian-archive-keyring"
if [ -n "$packages" ]; then
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "setup: run as root: apt-get install --no-install-recommends$packages" >&2; exit 1; }
        sudo=sudo
    fi
    echo "setup: installing$packages with apt-get, to build PgBouncer"
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120"
    $apt update </dev/null
    # The word splitting of the package list is meant.
    # shellcheck disable=SC2086
    $apt install -y --no-install-recommends $packages </dev/null >/dev/null
fi

echo "setup: building PgBouncer into $folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists" "$work/cache" "$folder"
echo "deb-src [signed-by=$keyring] http://deb.debian.org/debian trixie main" >"$work/sources.list"

# A configuration of its own: the machine's own sources and lists neither change nor matter. apt checks the signature.
apt_source() {
    apt-get -qq -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" "$@" </dev/null
}
apt_source update
(cd "$work" && apt_source source --download-only pgbouncer >/dev/null && tar -xzf pgbouncer_*.orig.tar.gz)

# Loopback needs neither TLS nor a resolver, and each would be one more package to install.
if ! (
    cd "$work"/pgbouncer-*/
    ./configure --quiet --without-openssl --without-cares --without-pam --without-systemd
    make -j "$(getconf _NPROCESSORS_ONLN)" pgbouncer
) >"$work/build.log" 2>&1; then
    tail -n 20 "$work/build.log" >&2
    exit 1
fi
mv "$work"/pgbouncer-*/pgbouncer "$folder/pgbouncer.new"
# In one step, so that no test ever starts half a program.
mv "$folder/pgbouncer.new" "$folder/pgbouncer"
is_fit "$folder/pgbouncer"
