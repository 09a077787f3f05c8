#!/bin/bash
# build-image.sh FILE: makes the image of the Plumber story as a docker archive,
# from Debian packages (debootstrap), without a registry. Needs root, 1.5 minutes
# and 1.5 GB in $TMPDIR. Does nothing when FILE is there and newer than the R code.
set -euo pipefail
out=${1:?build-image.sh FILE}
here=$(cd "$(dirname "$0")" && pwd)
if [ -e "$out" ] && [ "$out" -nt "$here/plumber.R" ] && [ "$out" -nt "$here/entrypoint.R" ]; then
    echo "· $out is there already"
    exit 0
fi
[ "$(id -u)" = 0 ] || { echo "build-image.sh needs root, for debootstrap" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "· installing debootstrap"; apt-get install -y -qq --no-install-recommends debootstrap >/dev/null; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
echo "· installing R and plumber from Debian packages (1.5 minutes)"
# The mirror that this machine's apt uses.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -E '^(deb|URIs:) ' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ' || true)
debootstrap --variant=minbase --include=r-base-core,r-cran-plumber,r-cran-promises,r-cran-future,r-cran-fastmap \
    bookworm "$root" "${mirror:-http://deb.debian.org/debian}" > "$root.log" 2>&1 || { tail -5 "$root.log"; exit 1; }
rm -rf "$root.log" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
chroot "$root" useradd --uid 1000 --create-home plumber
install -m 644 "$here/plumber.R" "$here/entrypoint.R" "$root/srv/"
echo "· packing the image"
mkdir -p "$(dirname "$out")"
(cd "$here/../.." && go run ./examples/pack --name mdneuzerling/plumber-on-k8s --root "$root" --user 1000 \
    --env PATH=/usr/local/bin:/usr/bin:/bin --env LANG=C.UTF-8 --port 8000 --out "$out" -- Rscript /srv/entrypoint.R)
