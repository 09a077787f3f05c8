#!/bin/bash
# bench.sh BIN: the figures of the README, measured on this machine with a cluster
# of its own. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$1 NAME=bench
export KUBECONFIG=$(mktemp)
proa() { "$BIN/proa" "$@"; }
trap 'proa delete --name $NAME >/dev/null 2>&1 || true; rm -f "$KUBECONFIG"' EXIT
now() { date +%s%3N; }

dir=$(mktemp -d)
t=$(now)
"$BIN/proa" server --disable-agent --data-dir "$dir" --bind-address 127.0.0.1 --secure-port 0 2>/dev/null & pid=$!
until [ -e "$dir/admin.kubeconfig" ] && curl -fsk -o /dev/null "$(sed -n 's/.*server: //p' "$dir/admin.kubeconfig")/readyz"; do sleep 0.01; done
echo "server ready after a start from nothing: $(($(now) - t)) ms"
kill $pid; wait $pid 2>/dev/null || true; rm -rf "$dir"

t=$(now); proa up --name $NAME --runtime-dir "$BIN" >/dev/null 2>&1
echo "proa up to a Ready node:                 $(($(now) - t)) ms"
proa image import "$BIN/twin.tar" --name twin:1 >/dev/null
pid=$(proa status --name $NAME -o json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p' | head -1)
sleep 20
ticks() { awk '{print $14+$15}' "/proc/$pid/stat"; }
a=$(ticks); sleep 60; b=$(ticks)
echo "idle memory of proa, one node:           $(($(awk '/VmRSS/{print $2}' "/proc/$pid/status") / 1000)) MB"
echo "idle CPU of proa, one node:              $(awk "BEGIN{print ($b-$a)/60}") % of a core"
echo "binary:                                  $(($(stat -c %s "$BIN/proa") / 1000000)) MB"

pod() { printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s","labels":{"app":"bench"}},"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":"twin:1","imagePullPolicy":"IfNotPresent"}]}}\n' "$1"; }
K="$BIN/proa kubectl"
for i in 1 2 3 4 5 6 7; do
    t=$(now); pod p$i | $K create -f - >/dev/null; $K wait --for=condition=Ready pod/p$i --timeout=60s >/dev/null
    echo $(($(now) - t)); $K delete pod p$i --now >/dev/null 2>&1
done | sort -n | sed -n 's/^/one pod, create to Ready (with kubectl):  /; 4s/$/ ms, the median/p'
for i in $(seq 30); do pod b$i; done > "$KUBECONFIG.pods"
t=$(now); $K create -f "$KUBECONFIG.pods" >/dev/null; $K wait --for=condition=Ready pod -l app=bench --timeout=120s >/dev/null
echo "30 pods at once:                         $(awk "BEGIN{printf \"%.1f\", 30000/($(now)-$t)}") pods/s"
rm -f "$KUBECONFIG.pods"
