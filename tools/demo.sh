#!/bin/bash
# demo.sh BIN: a local cluster with the Plumber example in it. "make demo" calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$1
"$BIN/proa" up --runtime-dir "$BIN"
K="$BIN/proa kubectl --context proa"
say() { echo "· $*"; }
if ! "$BIN/proa" image ls --context proa -o json | grep -q plumber-on-k8s; then
    say "loading the example image mdneuzerling/plumber-on-k8s"
    "$BIN/proa" image import --context proa "$BIN/twin.tar"
fi
say "applying examples/plumber/manifests"
$K apply -f examples/plumber/manifests
$K rollout status deployment/plumber-on-k8s-deployment --timeout=120s
url=$("$BIN/proa" status --name proa -o json | sed -n 's/.*"ingress": "\(.*\)".*/\1/p')
for _ in $(seq 100); do curl -fsS -o /dev/null "$url/health" 2>/dev/null && break; sleep 0.1; done
echo
echo "The API answers at $url:"
echo "  \$ curl \"$url/parity?int=15\""
echo "  $(curl -fsS "$url/parity?int=15")"
echo
echo "kubectl --context proa get all    looks at it;  bin/proa delete    removes everything."
