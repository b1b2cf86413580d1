#!/bin/sh
# Lays out the files of the container image: image.sh CANARY ROOT, from the repository's root.
# Beside the guard there are the libraries that it is linked with, as this machine has them, and whom TLS trusts. No shell, and
# no other program.
set -eu
canary=$1
root=$2
install -D "$canary" "$root/usr/bin/canary"
ldd "$canary" | grep -o '/[^ ]*' | while read -r library; do
    install -D "$library" "$root$library"
done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Without it names would be asked for at the DNS before /etc/hosts.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
install -D -m 644 deploy/canary.example.toml "$root/etc/canary/canary.toml"
install -D -m 644 -t "$root/usr/share/doc/canary-guard" LICENSE-MIT LICENSE-APACHE
mkdir -p "$root/var/lib/canary" "$root/run/canary"
install -d -m 1777 "$root/tmp"
