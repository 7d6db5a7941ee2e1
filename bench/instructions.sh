#!/usr/bin/env bash
# Instructions per operation of each step of a point's way (crates/hawkeye/benches/hotpath), counted by callgrind.
#
# Times on a shared machine hide a regression of 5 %; instructions do not. A step is done N times and 2 N times, and the
# difference divided by N: what sets it up falls out. The counts are compared with bench/instructions.txt, which holds
# for the compiler, the processor's kind and the build settings named in its first line. With another compiler or other
# settings it must be recorded anew; on another kind of processor there is nothing to compare with.
#
#   bench/instructions.sh [check]    prints both counts of each step; fails if one is over 5 % more than recorded
#   bench/instructions.sh record     writes bench/instructions.txt
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-check}
tolerance_percent=5
recorded=bench/instructions.txt
operations=20000

case "$mode" in check | record) ;; *) echo "usage: bench/instructions.sh [check|record]"; exit 2 ;; esac
command -v valgrind >/dev/null ||
    { echo "instructions: valgrind is missing (Debian: apt-get install valgrind)"; exit 2; }

settings="$(rustc --version | cut -d' ' -f1,2), $(uname -m), $(sed -n '/^\[profile.release\]/,/^$/p' Cargo.toml |
    grep -v '^\[' | paste -sd, -) hawkeye $(sed -n '/^\[profile.release.package.hawkeye\]/{n;p}' Cargo.toml)"
recorded_settings=$(head -1 "$recorded" | sed 's/^# //')
if [ "$mode" = check ] && [ "$settings" != "$recorded_settings" ]; then
    echo "instructions: recorded with $recorded_settings"
    echo "instructions: now $settings"
    case "$recorded_settings" in
    *", $(uname -m), "*) echo "instructions: record them anew (bench/instructions.sh record)"; exit 1 ;;
    *) echo "instructions: not compared, the processors differ"; exit 0 ;;
    esac
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cargo bench --locked -p hawkeye --bench hotpath --no-run --message-format=json >"$folder/build"
executable=$(sed -n 's/.*"name":"hotpath".*"executable":"\([^"]*\)".*/\1/p' "$folder/build" | tail -1)
[ -n "$executable" ] || { echo "instructions: cargo names no executable of the benchmark hotpath"; exit 2; }

# Instructions of a whole run: count FILE STEP OPERATIONS.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$executable" run "$2" "$3" >"$1" 2>&1 || { cat "$1"; return 1; }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$1" >"$1.count"
}

echo "# $settings" >"$folder/new"
for step in $("$executable" list); do
    count "$folder/once" "$step" "$operations" &
    once=$!
    count "$folder/twice" "$step" $((2 * operations))
    wait "$once"
    awk -v step="$step" -v n="$operations" -v a="$(cat "$folder/once.count")" -v b="$(cat "$folder/twice.count")" \
        'BEGIN { printf "%-26s %9.1f\n", step, (b - a) / n }' >>"$folder/new"
done

if [ "$mode" = record ]; then
    cp "$folder/new" "$recorded"
    cat "$recorded"
    exit
fi

# One more instruction than the tolerance is let pass: of the cheapest steps 5 % are two.
awk -v most="$tolerance_percent" '
    BEGIN { printf "%-26s %9s %9s %9s\n", "step", "recorded", "now", "change" }
    /^#/ { next }
    NR == FNR { old[$1] = $2; next }
    !($1 in old) { printf "%-26s %9s %9s %9s  record it\n", $1, "", $2, "new"; worse = 1; next }
    {
        is_worse = $2 > old[$1] * (1 + most / 100) + 1
        printf "%-26s %9s %9s %+8.1f%%%s\n", $1, old[$1], $2, ($2 / old[$1] - 1) * 100, is_worse ? "  more" : ""
        worse = worse || is_worse
        delete old[$1]
    }
    END {
        for (step in old) { printf "%-26s %9s %9s %9s  record without it\n", step, old[step], "", "gone"; worse = 1 }
        exit worse
    }
' "$recorded" "$folder/new" || { echo "instructions: more than $tolerance_percent % above what is recorded, or other steps"; exit 1; }
echo "instructions: all within $tolerance_percent % of what is recorded"
