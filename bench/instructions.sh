#!/usr/bin/env bash
# Instructions per operation of each step of a point's way (crates/hawkeye/benches/hotpath), counted by callgrind.
#
# Times on a shared machine hide a regression of 5 %; instructions do not. A step is done N times and 2 N times, and the
# difference divided by N: what sets it up falls out. The counts are compared with bench/instructions.txt, which holds
# for the compiler, the processor's kind and the build settings named in its first line; with others they are only
# printed.
#
#   bench/instructions.sh            print, compare; exit 1 if a step needs over 5 % more than recorded
#   bench/instructions.sh --record   write bench/instructions.txt
set -euo pipefail
cd "$(dirname "$0")/.."

tolerance_percent=5
recorded=bench/instructions.txt

command -v valgrind >/dev/null || { echo "instructions: valgrind is missing (Debian: apt-get install valgrind)"; exit 2; }

executable=$(cargo bench --locked -p hawkeye --bench hotpath --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"name":"hotpath".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -n "$executable" ] || { echo "instructions: the benchmark does not build: cargo bench -p hawkeye --bench hotpath --no-run"; exit 2; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Instructions of a whole run.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$executable" run "$1" "$2" >"$log" 2>&1 || { cat "$log"; exit 2; }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log"
}

settings="$(rustc --version | cut -d' ' -f1,2), $(uname -m), $(sed -n '/^\[profile.release\]/,/^$/p' Cargo.toml | grep -v '^\[' | paste -sd, -)"
operations=20000
new=$(mktemp)
trap 'rm -f "$log" "$new"' EXIT
echo "# $settings" >"$new"
for step in $("$executable" list); do
    once=$(count "$step" "$operations")
    twice=$(count "$step" $((2 * operations)))
    awk -v step="$step" -v n="$operations" -v a="$once" -v b="$twice" 'BEGIN { printf "%-26s %9.1f\n", step, (b - a) / n }' |
        tee -a "$new"
done

if [ "${1:-}" = --record ]; then
    cp "$new" "$recorded"
    echo "recorded in $recorded"
elif [ "$(head -1 "$new")" != "$(head -1 "$recorded")" ]; then
    echo "not compared: recorded with $(head -1 "$recorded"), counted with $(head -1 "$new")"
else
    awk -v most="$tolerance_percent" '
        /^#/ { next }
        NR == FNR { old[$1] = $2; next }
        !($1 in old) { print $1 " is new: record it (bench/instructions.sh --record)"; worse = 1; next }
        $2 > old[$1] * (1 + most / 100) + 1 { printf "%s: %s instructions, recorded %s\n", $1, $2, old[$1]; worse = 1 }
        END { exit worse }
    ' "$recorded" "$new" || { echo "instructions: more than $tolerance_percent % above what is recorded"; exit 1; }
    echo "all within $tolerance_percent % of what is recorded"
fi
