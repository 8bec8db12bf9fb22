#!/bin/sh
# Runs the Common Test suites and the properties on other OTP releases: those of Debian's trixie
# and sid, each in a chroot that is made once and kept. Counted with them, as one each: that the
# application compiles there without a warning, and that a node takes the nif path. The last line
# is `N passed, N failed' over all releases.
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
packages='rebar3 erlang-ssl erlang-proper gcc libc6-dev git'
peers='jsx cowboy cowlib gun ranch'
work=/work/erlmcp_native
logs=_build/test-logs
cargo_home=${CARGO_HOME:-$HOME/.cargo}
passed=0
failed=0
summary=

# Mounts and processes end with the namespaces, however this script ends.
isolated() {
    unshare --mount --pid --fork --kill-child "$@"
}

# in_root FOLDER COMMAND... Rust comes last in PATH: the folder of a toolchain that is not
# rustup's may hold another Erlang.
in_root() {
    isolated sh -euc '
        root=$1
        rust=$2
        registry=$3
        folder=$4
        shift 4
        mount -t proc proc "$root/proc"
        mount --bind "$rust" "$root/opt/rust"
        mount --bind "$registry" "$root/root/.cargo/registry"
        exec chroot "$root" env -i --chdir="$folder" HOME=/root LANG=C.UTF-8 \
            PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/rust/bin DEBIAN_FRONTEND=noninteractive \
            ERLMCP_NATIVE_PREBUILT=/work/erlmcp_native.so "$@"
    ' sh "$root" "$(rustc --print sysroot)" "$cargo_home/registry" "$@" </dev/null
}

make_root() {
    [ "$(cat "$root/.packages" 2>/dev/null)" != "$packages" ] || return 0
    echo "otp-matrix: making a chroot of Debian $release in $root"
    if [ ! -d "$root" ]; then
        rm -rf "$root.unfinished"
        isolated debootstrap --variant=minbase --include=ca-certificates \
            "$release" "$root.unfinished" "$mirror"
        mv "$root.unfinished" "$root"
    fi
    mkdir -p "$root/opt/rust" "$root/root/.cargo/registry" "$cargo_home/registry"
    # debootstrap leaves the names of this machine to an installer.
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    # No package may start a daemon in here.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # A mirror may be older than the validity of a rolling release.
    in_root / apt-get update -qq -o Acquire::Check-Valid-Until=false
    # shellcheck disable=SC2086
    in_root / apt-get install -y -qq --no-install-recommends $packages >/dev/null
    echo "$packages" >"$root/.packages"
}

# The working tree as it is, without what is built in it, and what the tests read beside it.
copy_tree() {
    rm -rf "$root/work"
    mkdir -p "$root$work/_build/peers/lib"
    git ls-files -z --cached --others --exclude-standard |
        tar --null --ignore-failed-read -T - -cf - | tar -xf - -C "$root$work"
    cp priv/erlmcp_native.so priv/erlmcp_native_port "$root/work/"
    for peer in $peers; do
        cp -R _build/peers/lib/"$peer"-* "$root$work/_build/peers/lib/"
    done
    git -C "$root$work" init -q
    git -C "$root$work" add --all
    [ ! -d ../shared ] || cp -R ../shared "$root/work/"
}

# What was compiled by OTP 25 does not all load on OTP 29. One module of cowlib (cow_sse) does not
# compile there, but loads as it is.
compile_peers() {
    in_root $work erl -noshell -eval '
        [begin
            {ok, {_, [{abstract_code, {_, Forms}}]}} = beam_lib:chunks(File, [abstract_code]),
            case compile:noenv_forms(Forms, [debug_info]) of
                {ok, _, Beam} -> ok = file:write_file(File, Beam);
                error -> ok
            end
        end || File <- filelib:wildcard("_build/peers/lib/*/ebin/*.beam")], halt().'
}

# The application here is the one of `rebar3 as check compile'. What the node logs is no answer.
answer() {
    in_root $work erl -noshell -pa _build/check/lib/erlmcp_native/ebin \
        -eval "io:format(\"~nanswer ~ts~n\", [begin $1 end]), halt()." | sed -n 's/^answer //p'
}

otp_version() {
    answer '{ok, Version} = file:read_file(filename:join([code:root_dir(), "releases",
        erlang:system_info(otp_release), "OTP_VERSION"])), string:trim(Version)'
}

default_path() {
    answer '{ok, _} = application:ensure_all_started(erlmcp_native), erlmcp_native_path:default()'
}

# The hook compiles erlang/takeover without warnings_as_errors.
compile() {
    in_root $work rebar3 as check compile 2>&1 && echo 'otp-matrix: compiled'
}

test_release() {
    make_root
    copy_tree
    compile_peers
    version=$(otp_version)

    compile | tee "$log.compile"
    good=0
    bad=0
    if grep -q '^otp-matrix: compiled$' "$log.compile" && ! grep -qi warning "$log.compile"; then
        good=$((good + 1))
    else
        bad=$((bad + 1))
        echo "otp-matrix: OTP $version does not compile the application without a warning"
    fi
    path=$(default_path)
    if [ "$path" = nif ]; then
        good=$((good + 1))
    else
        bad=$((bad + 1))
    fi

    { in_root $work sh test/run.sh ct properties 2>&1 || :; } | tee "$log"
    # shellcheck disable=SC2046
    set -- $(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log")
    good=$((good + ${1:-0}))
    bad=$((bad + ${2:-1}))
    passed=$((passed + good))
    failed=$((failed + bad))
    names=$(sed -n '/^failed: /p' "$log")
    summary="${summary}OTP $version ($release), path ${path:-none}: $good passed, $bad failed
${names:+$names
}"
}

report() {
    if [ -n "$unfinished" ]; then
        failed=$((failed + 1))
        summary="$summary$unfinished: not finished
"
    fi
    printf '\n%s%s passed, %s failed\n' "$summary" "$passed" "$failed"
    [ "$failed" = 0 ] || exit 1
}

[ "$(id -u)" = 0 ] || {
    echo 'otp-matrix: chroot and debootstrap need root' >&2
    exit 1
}
trap report EXIT
trap 'exit 1' HUP INT TERM

unfinished='the build outside'
rebar3 compile
command -v debootstrap >/dev/null || {
    apt-get update -qq
    apt-get install -y -qq debootstrap </dev/null
}
mkdir -p "$dir" $logs
for release in ${OTP_MATRIX:-trixie sid}; do
    unfinished=$release
    root=$(cd "$dir" && pwd)/$release
    log=$logs/otp-$release.log
    test_release
done
unfinished=
