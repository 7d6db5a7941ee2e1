#!/bin/sh
# Probes against real servers on loopback: nginx with HTTP/2, TLS, an expired and a wrong-name certificate, redirects
# and errors; dnsmasq; aiosmtpd with STARTTLS (from PyPI, in a virtual environment of its own); a Nagios plugin. Needs
# nginx, dnsmasq-base, monitoring-plugins-basic, and python3 with venv, which are installed if that may be (needs.sh).
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
PATH=$PATH:/usr/sbin:/usr/lib/nagios/plugins
need nginx nginx-light
need dnsmasq dnsmasq-base
need check_dummy monitoring-plugins-basic
need_venv

dir=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # several numbers
trap 'if [ -n "$pids" ]; then kill $pids 2> /dev/null || true; fi; rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet aiosmtpd || give_up "the mail server (PyPI package aiosmtpd) cannot be had"
# shellcheck disable=SC2046 # six numbers
set -- $(python3 - <<'PORTS'
import socket
sockets = [socket.socket() for _ in range(6)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PORTS
)
plain=$1 tls=$2 expired=$3 other=$4 dns=$5 smtp=$6
pairs=$PWD/crates/netprobe/testdata/tls

# Workers of a nginx that root starts are nobody.
chmod 755 "$dir"
mkdir "$dir/www"
echo '{"checks": [{"state": "ok"}]}' > "$dir/www/health"
cat > "$dir/nginx.conf" <<CONF
daemon off;
pid $dir/nginx.pid;
error_log $dir/nginx.log;
events {}
http {
    access_log off;
    gzip on;
    gzip_types *;
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    ssl_certificate_key $pairs/server.key;
    root $dir/www;
    server {
        listen 127.0.0.1:$plain;
        location = /moved { return 301 https://localhost:$tls/health; }
        location = /circle { return 302 /circle; }
        location = /broken { return 503; }
    }
    server { listen 127.0.0.1:$tls ssl http2; ssl_certificate $pairs/good.crt; }
    server { listen 127.0.0.1:$expired ssl; ssl_certificate $pairs/expired.crt; }
    server { listen 127.0.0.1:$other ssl; ssl_certificate $pairs/other.crt; }
}
CONF
nginx -e "$dir/nginx.log" -c "$dir/nginx.conf" &
pids="$pids $!"
dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --pid-file --user="$(id -un)" \
    --port="$dns" --listen-address=127.0.0.1 --bind-interfaces --local=/example/ \
    --host-record=shop.example,10.0.0.1,2001:db8::1 --cname=www.shop.example,shop.example \
    --mx-host=shop.example,mx.shop.example,10 --txt-record=shop.example,v=spf1 > "$dir/dnsmasq.log" 2>&1 &
pids="$pids $!"
"$dir/venv/bin/python" -u -m aiosmtpd --nosetuid --listen "127.0.0.1:$smtp" \
    --tlscert "$pairs/good.crt" --tlskey "$pairs/server.key" > "$dir/smtp.log" 2>&1 &
pids="$pids $!"
python3 - "$@" <<'WAIT'
import socket, sys, time
for port in sys.argv[1:]:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        sys.exit(f"nobody listens on {port}")
WAIT

TEST_PROBE_PLAIN=$plain TEST_PROBE_TLS=$tls TEST_PROBE_EXPIRED=$expired TEST_PROBE_OTHER=$other TEST_PROBE_DNS=$dns \
    TEST_PROBE_SMTP=$smtp TEST_PROBE_PLUGIN=$(command -v check_dummy) \
    cargo test --locked -p netprobe -- --include-ignored --exact tests::real::real_servers_are_seen_as_they_are
echo "nginx, dnsmasq, a mail server and a plugin were seen as they are"
