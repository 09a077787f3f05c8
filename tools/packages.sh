#!/bin/sh
# Installs the Debian packages that are missing: gcc, pkg-config and libseccomp
# to build runc with seccomp; nftables, iproute2, kmod to run nodes; curl for
# the demo; a static busybox for images of tests.
set -eu
missing=
for p in gcc libc6-dev pkg-config libseccomp-dev nftables iproute2 curl ca-certificates busybox-static; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
echo "· installing Debian packages:$missing"
if ! $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; then
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
