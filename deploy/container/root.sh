#!/bin/sh
# Lays out the file system of the container image in DESTINATION: the binary, the shared libraries it needs, and the few files that glibc
# and OpenSSL look for. Nothing else: no shell, no package manager. Used by the Containerfile, and by its test without a container.
#
#     deploy/container/root.sh BINARY DESTINATION
set -eu

[ $# -eq 2 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
binary=$1 root=$2
uid=10001

mkdir -p "$root/usr/bin" "$root/usr/lib64" "$root/usr/lib/ssl" "$root/etc/ssl/certs" "$root/etc/pointsman" "$root/var/lib/pointsman" "$root/tmp"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
install -m 0755 "$binary" "$root/usr/bin/pointsman"

# "name => /path (address)", and "/path (address)" for the loader.
ldd "$binary" >"$root/tmp/libraries"
if grep 'not found' "$root/tmp/libraries" >&2; then exit 1; fi
awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' "$root/tmp/libraries" | sort -u | while read -r library; do
    install -D -m 0755 "$(readlink -f "$library")" "$root$library"
done
rm "$root/tmp/libraries"

printf 'root:x:0:0:root:/:/nonexistent\npointsman:x:%s:%s:Pointsman:/var/lib/pointsman:/nonexistent\n' $uid $uid >"$root/etc/passwd"
printf 'root:x:0:\npointsman:x:%s:\n' $uid >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

# The authorities of the system's store, where Debian's OpenSSL looks for them: for backend_tls without "ca", and for the sources of discovery.
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"

chmod 0700 "$root/var/lib/pointsman"
chown $uid:$uid "$root/var/lib/pointsman"
chmod 1777 "$root/tmp"
