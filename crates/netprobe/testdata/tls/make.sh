#!/bin/sh
# Makes the certificates of the tests beside it: an authority, and what it has signed. Needs openssl; run in this folder.
set -eu
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
: > "$work/index"
echo 01 > "$work/serial"
cat > "$work/ca.conf" <<END
[ca]
default_ca = own
[own]
database = $work/index
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[end]
basicConstraints = CA:FALSE
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,digitalSignature
END
key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }
always="20200101000000Z 20491231000000Z"
# issue FILE NAME EXTENSIONS BEGIN END, then how openssl ca is to sign it
issue() {
    file=$1 name=$2 extensions=$3 begin=$4 end=$5
    shift 5
    openssl ca -batch -notext -config "$work/ca.conf" -startdate "$begin" -enddate "$end" -in "$work/request" -out "$file" \
        -extensions "$extensions" "$@" 2> "$work/log" || { echo "$name"; cat "$work/log"; exit 1; }
}
# request KEY NAME ALTNAMES
request() {
    openssl req -new -key "$1" -subj "/CN=$2" ${3:+-addext "subjectAltName=$3"} -out "$work/request"
}
# sign NAME ALTNAMES BEGIN END
sign() {
    request server.key "$1" "$2"
    issue "$1.crt" "$1" end "$3" "$4" -cert ca.crt -keyfile "$work/ca.key"
}
key "$work/ca.key"
key server.key
request "$work/ca.key" "authority of tests" ""
issue ca.crt authority authority $always -selfsign -keyfile "$work/ca.key"
here="DNS:localhost,IP:127.0.0.1,IP:::1"
sign good "$here" $always
sign expired "$here" 20180101000000Z 20200101000000Z
sign not_yet "$here" 20480101000000Z 20491231000000Z
sign other "DNS:other.example" $always
request server.key itself "$here"
issue self.crt itself end $always -selfsign -keyfile server.key
issue self_authority.crt itself authority $always -selfsign -keyfile server.key
request server.key stranger "$here"
issue stranger.crt stranger end $always -cert self_authority.crt -keyfile server.key
request server.key client "$here"
issue client.crt client client $always -cert ca.crt -keyfile "$work/ca.key"
