#!/bin/bash
# Runs fuzz targets, each for as long as the first argument says; the others
# narrow them down: tools/fuzz.sh 10m FuzzPatch FuzzRequest. An input that fails
# is kept beside the test, where "go test" tries it ever after.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${1:-1m}; shift
code=0
while IFS=: read -r file _ func; do
    name=${func#func }; name=${name%%(*}
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    dir=./$(dirname "$file")
    echo "· $name of $dir, $time"
    "${GO:-go}" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 2s ${FUZZFLAGS:-} "$dir" 2>&1 | tail -n 12 || code=1
done < <(grep -rn '^func Fuzz' --include='*_test.go' internal cmd test)
exit $code
