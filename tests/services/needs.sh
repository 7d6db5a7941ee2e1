# shellcheck shell=sh
# What a script needs and a machine may lack. It is installed where that may be (root on a Debian or Ubuntu); else the
# script ends: as a failure under CI (CI=true), where nothing may pass without having run, elsewhere with a line that
# says what was skipped and why. Read by the scripts beside it: . tests/services/needs.sh

# $1: what is missing.
give_up() {
    if [ "${CI:-}" = true ]; then
        echo "FAILED, as nothing is skipped under CI: $1"
        exit 1
    fi
    echo "SKIPPED: $1"
    exit 0
}

# $@: Debian packages. Does what it may; whether it helped is for the caller to see.
install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        apt-get update -q > /dev/null || true
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" > /dev/null || true
    fi
}

# $1: a program; the others: the Debian packages that bring it.
need() {
    program=$1
    shift
    if command -v "$program" > /dev/null; then return; fi
    install "$@"
    command -v "$program" > /dev/null || give_up "$program is missing (apt-get install $*)"
}

# python3 that can make virtual environments: Debian has that in a package of its own.
need_venv() {
    need python3 python3
    if python3 -c 'import ensurepip' 2> /dev/null; then return; fi
    install python3-venv
    python3 -c 'import ensurepip' 2> /dev/null || give_up "python3 makes no virtual environments (apt-get install python3-venv)"
}
