#!/bin/sh
# Called by the Dockerfile: collect.sh BINARY FOLDER. Makes the folder the root of an image: the binary, the libraries that it loads,
# certificates, a user and /tmp. And what scanners look for: the system, and the packages that the libraries came from.
set -eu
binary=$1 folder=$2

install -D --mode=755 --strip "$binary" "$folder/usr/local/bin/${binary##*/}"
install -D --mode=644 /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
install -D --mode=644 /etc/os-release "$folder/etc/os-release"
install -d --mode=1777 "$folder/tmp"
echo 'nonroot:x:65532:65532::/nonexistent:/sbin/nologin' >"$folder/etc/passwd"
echo 'nonroot:x:65532:' >"$folder/etc/group"
# Without it glibc asks for a name in DNS before it looks into /etc/hosts.
echo 'hosts: files dns' >"$folder/etc/nsswitch.conf"

mkdir -p "$folder/var/lib/dpkg/status.d"
for library in $(ldd "$binary" | grep -o '/[^ ]*'); do
    cp --dereference --parents "$library" "$folder"
    package=$(dpkg-query --search "$library" "$(readlink -f "$library")" 2>/dev/null | head -n 1 | cut -d : -f 1)
    dpkg-query --status "$package" >"$folder/var/lib/dpkg/status.d/$package"
done
