#!/bin/sh
# Puts the Erlang libraries that we are compared and tested with into _build/peers/lib, compiled,
# at the versions that erlmcp uses: jsx, cowboy, ranch, cowlib and gun out of Debian's
# rabbitmq-server package, of which nothing is installed or started.
set -eu
cd "$(dirname "$0")/.."

peers=_build/peers
wanted='jsx cowboy ranch cowlib gun'

complete() {
    for name in $wanted; do
        set -- "$peers/lib/$name"-*/ebin
        [ -d "$1" ] || return 1
    done
}

complete && exit 0

scratch=$peers/.unpack.$$
rm -rf "$scratch"
mkdir -p "$scratch" "$peers/lib"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

echo "peers: unpacking $wanted out of Debian's rabbitmq-server package"
# apt-get downloads as another user, who must be able to write here.
chmod 755 "$scratch"
(cd "$scratch" && apt-get download -q rabbitmq-server)
dpkg -x "$scratch"/rabbitmq-server_*.deb "$scratch/unpacked"
for name in $wanted; do
    for dir in "$scratch"/unpacked/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins/"$name"-*; do
        [ -d "$dir/ebin" ] || continue
        rm -rf "$peers/lib/$(basename "$dir")"
        mv "$dir" "$peers/lib/"
    done
done
complete || {
    echo "peers: this rabbitmq-server package does not hold all of: $wanted" >&2
    exit 1
}
