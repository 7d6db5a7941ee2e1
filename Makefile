# The commands of this repository; a line that begins with two hashes is what `make help` says of the target below it.
# `make run` needs a Rust toolchain, a C compiler, git and make, no more; `make test` also python3, in which the checker of
# the recorded REST answers is written, curl, with which docs/first-alarm.md is followed, and node for the page's own tests, which are left out where it is missing.

.DEFAULT_GOAL := help
.PHONY: help run build agent package test test-services lint doc fuzz bench bench-micro bench-instructions bench-judge bench-explosion bench-lists bench-agent bench-probes

## Lists these commands.
help:
	@awk '/^## / { text = substr($$0, 4) } \
	    /^[a-z-]+:/ { sub(/:.*/, ""); if (text) printf "make %-20s %s\n", $$0, text; text = "" }' Makefile

## Builds, starts the server and this host's agent, prints where to look.
run: build
	./target/release/hawkeye server --with-agent

## The release build.
build:
	cargo build --release --locked --bin hawkeye

## Builds the slim binary of the agent: target/agent/hawkeye-agent.
agent:
	cargo build --profile agent --locked -p agent

## Tarballs and Debian packages of server and agent, with their systemd units: target/package.
package: build agent
	./packaging/build.sh

## Every test that needs no outside service; says what it leaves out.
test:
	cargo test --workspace --locked
	@echo "left out: what needs a real server (make test-services), hostile bytes (make fuzz), figures (make bench-instructions)"
	@command -v node >/dev/null || echo "left out, for node is not installed: the page's own tests (web/tests.mjs)"

## Tests against real servers, which the scripts install and start on loopback.
test-services: build agent
	./tests/services/run.sh

## Formatting and clippy, without a warning.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

## The code's documentation, private items too, without a warning: target/doc.
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

## Hostile bytes, FUZZ_SECONDS=60 for each target; fuzz/README.md.
FUZZ_SECONDS = 60
fuzz:
	./fuzz/run.sh $(FUZZ_SECONDS)

## Beside VictoriaMetrics and Prometheus, docs/benchmarks.md; BENCH_SIZES=100k takes minutes, 1m much longer.
BENCH_SIZES = 100k,1m
bench: build
	python3 bench/side_by_side.py --series $(BENCH_SIZES) $(BENCH_ARGUMENTS)

## What single operations cost.
bench-micro:
	cargo bench --workspace --locked

## Instructions of each step of a point's way, against those recorded; needs valgrind.
bench-instructions:
	./bench/instructions.sh check

## From a point to its event, from a save to its effect; the judge alone; a rehearsal of seven days; a fleet at hbs.
bench-judge: build
	./bench/judge.sh
	./bench/judge_alone.sh
	./bench/replay.sh
	./bench/hbs.sh

## The API's lists on a site of 1,000 hosts with 3,200 strategies, and a changed strategy until its first event.
bench-lists: build
	./bench/lists.sh

## 600,000 new series against a memory_budget of 64 MiB: ten minutes.
bench-explosion: build
	./bench/explosion.sh

## The agent's memory, size and processor time beside those of Debian's node exporter and collectd: five minutes, as root.
bench-agent: agent
	./bench/agent.sh

## An agent with 1,000 probes beside one with none, memory and processor time: five minutes.
bench-probes: agent
	./bench/probes.sh
