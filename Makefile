# The commands of this repository. `make run` and `make test` need a Rust toolchain, a C compiler, git and make, no more.

.PHONY: run build test test-services lint bench

run: build
	./target/release/hawkeye server --with-agent

build:
	cargo build --release --locked --bin hawkeye

# Everything that needs no outside service; says what it skips.
test:
	cargo test --workspace --locked

# What needs a server (installed and started by the scripts themselves, on loopback).
test-services: build
	./tests/services/run.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench:
	cargo bench --workspace --locked
