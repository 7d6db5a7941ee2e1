#!/usr/bin/env bash
# Feeds every target of fuzz/fuzz_targets hostile bytes, from its seeds and from what earlier runs found, and fails when
# one of them crashes, hangs or holds too much memory.
#
#   fuzz/run.sh SECONDS [TARGET…]      so long each; all targets where none is named
#
# Needs cargo, a C++ compiler, and crates.io or a mirror when cargo-fuzz is not there yet: that goes to target/tools.
# Builds with the repository's own compiler: RUSTC_BOOTSTRAP lets it take the flags of sanitizers. The first build takes
# some three minutes of processor time and 350 MB in fuzz/target.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.13.2
seconds=${1:-}
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || { echo "usage: fuzz/run.sh SECONDS [TARGET...]"; exit 2; }
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

PATH="$PWD/target/tools/bin:$PATH"
if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    echo "fuzz: installing cargo-fuzz $version in target/tools"
    cargo install --quiet --locked --root target/tools cargo-fuzz --version "$version"
fi

export RUSTC_BOOTSTRAP=1
if [ ${#targets[@]} = 1 ]; then cargo fuzz build "${targets[0]}"; else cargo fuzz build; fi

failed=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    [ -d "fuzz/seeds/$target" ] || { echo "fuzz: $target has no seeds: put some in fuzz/seeds/$target"; exit 1; }
    if cargo fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
        printf 'fuzz: %-16s %9s inputs\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        cat "$log"
        echo "fuzz: $target failed"
        failed+=("$target")
    fi
done
[ ${#failed[@]} = 0 ] || { echo "fuzz: failed: ${failed[*]}; the inputs are in fuzz/artifacts"; exit 1; }
