#!/bin/sh
# Lays out the files of the container image: image.sh CANARY ROOT, from the repository's root.
# Beside the guard there is whom TLS trusts. No shell, no other program, and no library.
set -eu
canary=$1
root=$2
if readelf --program-headers --wide "$canary" | grep -qw INTERP; then
    echo "image.sh: $canary is linked with libraries, which the image has not: make it by 'cargo xtask dist'" >&2
    exit 1
fi
install -D "$canary" "$root/usr/bin/canary"
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Files and DNS are what the guard can ask by itself; another service would be a library.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
install -D -m 644 deploy/canary.example.toml "$root/etc/canary/canary.toml"
install -D -m 644 -t "$root/usr/share/doc/canary-guard" LICENSE-MIT LICENSE-APACHE
mkdir -p "$root/var/lib/canary" "$root/run/canary"
install -d -m 1777 "$root/tmp"
