#!/usr/bin/env bash
# Makes the packages of server and agent: a tarball and a Debian package of each, in target/package.
# Needs the release builds (make build agent), and for the Debian packages dpkg-deb.
#
# The programs link to libc alone of what a distribution has (libgcc and libm belong to it), and the packages want the
# libc that they were made with, or a newer one. The server keeps the names of its functions, by which `hawkeye pprof`
# tells where memory was taken; lines are only in the build itself. VERSION overrides that of Cargo.toml, XZ_LEVEL says
# how long to look for small files (0 to 9). Two runs on one commit make the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${VERSION:-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)}
level=${XZ_LEVEL:-6}
out=target/package
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
machine=$(uname -m)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# The oldest libc that has everything that a program asks for.
libc_of() {
    readelf --version-info "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2
}

# $1: package, $2: where its program is, $3: what strip leaves out, $4: example of the configuration, $5: name of the
# configuration's file.
stage() {
    local package=$1 root=$work/$1
    install -D -m 0755 "$2/$package" "$root/usr/bin/$package"
    strip "$3" "$root/usr/bin/$package"
    install -D -m 0644 "packaging/$package.service" "$root/lib/systemd/system/$package.service"
    install -D -m 0644 "packaging/$5" "$root/etc/hawkeye/$5"
    install -D -m 0644 "$4" "$root/usr/share/doc/$package/$4"
    install -D -m 0644 LICENSE "$root/usr/share/doc/$package/copyright"
}

tarball() {
    local name=$1-$version-linux-$machine root=$work/$1
    install -d "$work/$name"
    cp -p "$root/usr/bin/$1" "$root/lib/systemd/system/$1.service" "$root/etc/hawkeye"/*.toml \
        "$root/usr/share/doc/$1"/*.toml LICENSE README.md "$work/$name/"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -c "$name" |
        xz -T1 "-$level" > "$out/$name.tar.xz"
    echo "$out/$name.tar.xz"
}

debian_package() {
    local root=$work/$1 file
    install -d "$root/DEBIAN"
    sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$(dpkg --print-architecture)/" \
        -e "s/@LIBC@/$(libc_of "$root/usr/bin/$1")/" -e "s/@KIB@/$(du -sk "$root" | cut -f1)/" \
        "packaging/deb/$1/control" > "$root/DEBIAN/control"
    (cd "$root" && find etc -type f -printf '/%p\n') > "$root/DEBIAN/conffiles"
    for file in postinst prerm postrm; do
        install -m 0755 "packaging/deb/$1/$file" "$root/DEBIAN/$file"
    done
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz "-z$level" --build "$root" "$out" > /dev/null
    echo "$out/$1_${version}_$(dpkg --print-architecture).deb"
}

mkdir -p "$out"
stage hawkeye target/release --strip-debug hawkeye.example.toml hawkeye.toml
stage hawkeye-agent target/agent --strip-all hawkeye-agent.example.toml agent.toml
for package in hawkeye hawkeye-agent; do
    tarball "$package"
    if command -v dpkg-deb > /dev/null; then
        debian_package "$package"
    else
        echo "no Debian package of $package: dpkg-deb is not here"
    fi
done
