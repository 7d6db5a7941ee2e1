# The commands of this repository. `make run` needs a Rust toolchain, a C compiler, git and make, no more;
# `make test` also python3, in which the checker of the recorded REST answers is written.

.PHONY: run build test test-services lint bench bench-micro bench-instructions bench-judge bench-explosion

run: build
	./target/release/hawkeye server --with-agent

build:
	cargo build --release --locked --bin hawkeye

# Everything that needs no outside service.
test:
	cargo test --workspace --locked

# What needs a server (installed and started by the scripts themselves, on loopback).
test-services: build
	./tests/services/run.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Beside VictoriaMetrics and Prometheus, on this machine: docs/benchmarks.md. BENCH_SIZES=100k takes minutes, 1m much longer.
BENCH_SIZES = 100k,1m
bench: build
	python3 bench/side_by_side.py --series $(BENCH_SIZES) $(BENCH_ARGUMENTS)

# What single operations cost.
bench-micro:
	cargo bench --workspace --locked

# Instructions of each step of a point's way, against those recorded; needs valgrind.
bench-instructions:
	./bench/instructions.sh

# From a point to its event, from a save to its effect; the judge alone; a rehearsal of seven days.
bench-judge: build
	./bench/judge.sh
	./bench/judge_alone.sh
	./bench/replay.sh

# 600,000 new series against a memory_budget of 64 MiB: ten minutes.
bench-explosion: build
	./bench/explosion.sh
