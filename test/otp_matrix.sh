#!/bin/sh
# Runs the Common Test suites and the properties on other OTP releases: those of Debian's trixie
# and sid, each in a chroot that is made once and kept.
#
#   OTP_MATRIX_DIR   where the chroots are; _build/otp otherwise
#   OTP_MATRIX       the Debian releases; "trixie sid" otherwise
#   DEBIAN_MIRROR    http://deb.debian.org/debian otherwise
#
# The native library is the one that was built outside: what was linked with an older libc loads
# with a newer one. The Rust toolchain is lent to the chroot, for the tests of the build. Needs
# root.
set -eu
cd "$(dirname "$0")/.."

dir=${OTP_MATRIX_DIR:-_build/otp}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
packages='rebar3 erlang-ssl erlang-proper erlang-jiffy erlang-meck gcc libc6-dev git'
work=work/erlmcp_native
cargo_home=${CARGO_HOME:-$HOME/.cargo}

make_root() {
    [ "$(cat "$1/.packages" 2>/dev/null)" != "$packages" ] || return 0
    echo "otp-matrix: making a chroot of Debian $2 in $1"
    [ -x "$1/usr/bin/apt-get" ] || {
        rm -rf "$1"
        mkdir -p "$1"
        debootstrap --variant=minbase --include=ca-certificates "$2" "$1" "$mirror"
    }
    # No package may start a daemon in here.
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
    # A mirror may be older than the validity of a rolling release.
    chroot "$1" apt-get update -qq -o Acquire::Check-Valid-Until=false
    wanted=
    for package in $packages; do
        if chroot "$1" apt-cache show "$package" >/dev/null 2>&1; then
            wanted="$wanted $package"
        else
            echo "otp-matrix: Debian $2 has no $package"
        fi
    done
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive chroot "$1" \
        apt-get install -y -qq --no-install-recommends $wanted </dev/null >/dev/null
    echo "$packages" >"$1/.packages"
}

# The working tree as it is, without what is built in it, and what the tests read beside it.
copy_tree() {
    rm -rf "$1/work"
    mkdir -p "$1/$work"
    git ls-files -z --cached --others --exclude-standard |
        tar --null --ignore-failed-read -T - -cf - | tar -xf - -C "$1/$work"
    cp priv/erlmcp_native.so "$1/work/"
    mkdir -p "$1/$work/_build/peers"
    cp -R _build/peers/lib "$1/$work/_build/peers/"
    git -C "$1/$work" init -q
    git -C "$1/$work" add --all
    [ ! -d ../shared ] || cp -R ../shared "$1/work/"
}

# The mounts go away with their namespace.
run_in() {
    mkdir -p "$1/opt/rust" "$1/root/.cargo/registry" "$cargo_home/registry"
    unshare --mount sh -euc '
        mount -t proc proc "$1/proc"
        mount --bind "$2" "$1/opt/rust"
        mount --bind "$3/registry" "$1/root/.cargo/registry"
        exec chroot "$1" env -i HOME=/root LANG=C.UTF-8 \
            PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            ERLMCP_NATIVE_PREBUILT=/work/erlmcp_native.so \
            sh "/$4/test/run.sh" ct properties
    ' sh "$1" "$(rustc --print sysroot)" "$cargo_home" "$work"
}

otp_release() {
    chroot "$1" erl -noshell -eval \
        'io:format("~s~n", [erlang:system_info(otp_release)]), halt().'
}

[ "$(id -u)" = 0 ] || {
    echo 'otp-matrix: chroot and debootstrap need root' >&2
    exit 1
}
command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap </dev/null

rebar3 compile
mkdir -p "$dir" _build/test-logs
status=0
lines=
for release in ${OTP_MATRIX:-trixie sid}; do
    root=$(cd "$dir" && pwd)/$release
    make_root "$root" "$release"
    copy_tree "$root"
    log=_build/test-logs/otp-$release.log
    { run_in "$root" 2>&1 || touch "$log.failed"; } | tee "$log"
    if [ -f "$log.failed" ]; then
        rm -f "$log.failed"
        status=1
    fi
    lines="${lines}OTP $(otp_release "$root") ($release): $(tail -n 1 "$log")
"
done
printf '\n%s' "$lines"
exit $status
