#!/bin/sh
# Sends a mail to a real SMTP server (aiosmtpd from PyPI, in a virtual environment of its own, on loopback) and looks at
# what it got. Needs python3 with venv, and PyPI or a mirror. TEST_SMTP=host:port uses another server instead.
set -eu
cd "$(dirname "$0")/../.."

run_test() {
    cargo test --locked -p hawkeye --bin hawkeye -- --include-ignored --exact role::alarm::send::tests::a_real_mail_server_takes_a_mail
}

if [ -n "${TEST_SMTP:-}" ]; then
    run_test
    exit
fi
. tests/services/needs.sh
need_venv

dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet aiosmtpd || give_up "the mail server (PyPI package aiosmtpd) cannot be had"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$dir/venv/bin/python" -u -m aiosmtpd --nosetuid --listen "127.0.0.1:$port" > "$dir/mails" 2>&1 &
server=$!
python3 - "$port" <<'WAIT'
import socket, sys, time
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("the mail server does not listen")
WAIT

TEST_SMTP="127.0.0.1:$port" run_test

for line in 'From: Hawkeye <hawkeye@site.example>' 'To: ops@site.example' 'Content-Type: text/plain; charset=utf-8' \
    'PROBLEM' '.starts with a dot'; do
    grep -qxF -- "$line" "$dir/mails" || { echo "the server did not get: $line"; cat "$dir/mails"; exit 1; }
done
echo "a real mail server got the mail"
