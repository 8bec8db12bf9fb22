#!/bin/sh
# The compile hook of rebar.config: puts the native library into priv/, and the modules that
# stand in for erlmcp's own into priv/takeover/. Silent when both are up to date.
#
#   ERLMCP_NATIVE_SKIP=1         no native library; one that an earlier build left is removed
#   ERLMCP_NATIVE_PREBUILT=FILE  take FILE instead of building; relative to the root project
#   CARGO_TARGET_DIR             as cargo reads it; target/ in this folder otherwise
#
# rebar3 compiles a dependency once: where this project is one, a change of these takes effect
# after `rebar3 clean --apps erlmcp_native'.
set -eu
LC_ALL=C
export LC_ALL

started_in=$(pwd)
cd "$(dirname "$0")/.."

library=priv/erlmcp_native.so
library_stamp=native/.library.stamp
takeover=priv/takeover
takeover_stamp=native/.takeover.stamp
scratch=native/.build.$$
skip_hint='(ERLMCP_NATIVE_SKIP=1 compiles without the native library)'

say() {
    echo "erlmcp_native: $*"
}

fail() {
    say "$*" >&2
    exit 1
}

open_scratch() {
    rm -rf "$scratch"
    mkdir -p priv "$scratch"
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 1' HUP INT TERM
}

# Names and contents, not times: in a fresh checkout every file is new.
checksum() {
    sort | xargs cksum | cksum
}

library_inputs() {
    uname -sm
    find .cargo Cargo.toml Cargo.lock native -type f ! -path '*/.*' 2>/dev/null | checksum
}

# The stamp names what the library was made from and the library itself: one that was put in
# its place by hand counts as stale.
library_is_current() {
    [ -f "$library" ] && [ -f "$library_stamp" ] || return 1
    [ "$(cat "$library_stamp")" = "$1
$(cksum <"$library")" ]
}

# Renamed into place: a running node keeps the file that it has mapped.
install_library() {
    cp "$1" "$scratch/library"
    chmod 755 "$scratch/library"
    printf '%s\n%s\n' "$2" "$(cksum <"$scratch/library")" >"$scratch/stamp"
    mv -f "$scratch/library" "$library"
    mv -f "$scratch/stamp" "$library_stamp"
}

remove_library() {
    if [ -f "$library" ]; then
        rm -f "$library" "$library_stamp"
        say "removed $library, $1"
    fi
}

take_prebuilt() {
    case $1 in
        /*) file=$1 ;;
        *) file=${REBAR_ROOT_DIR:-$started_in}/$1 ;;
    esac
    [ -f "$file" ] && [ -r "$file" ] || fail "ERLMCP_NATIVE_PREBUILT: no such file: $file"
    inputs="prebuilt $(cksum <"$file")"
    if ! library_is_current "$inputs"; then
        open_scratch
        install_library "$file" "$inputs"
    fi
}

# older FOUND REQUIRED, both MAJOR.MINOR with anything behind
older() {
    found_minor=${1#*.}
    required_minor=${2#*.}
    [ "${1%%.*}" -lt "${2%%.*}" ] ||
        { [ "${1%%.*}" -eq "${2%%.*}" ] && [ "${found_minor%%.*}" -lt "${required_minor%%.*}" ]; }
}

# Prints nothing when there is none. Where rustup has no toolchain its commands are in PATH
# and fail.
rust_version() {
    cargo --version >/dev/null 2>&1 || return 0
    "${RUSTC:-rustc}" --version 2>/dev/null | sed -n 's/^rustc \([0-9][0-9.]*\).*/\1/p'
}

build_library() {
    inputs=$(library_inputs)
    if library_is_current "$inputs"; then
        return
    fi
    required=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
    found=$(rust_version)
    if [ -z "$found" ]; then
        remove_library 'which its sources have outrun'
        say "no Rust in PATH, the node will run on the beam path; for the nif path install Rust" \
            "$required or newer (https://rustup.rs), then" \
            "'rebar3 clean --apps erlmcp_native' and 'rebar3 compile'"
        return
    fi
    if older "$found" "$required"; then
        fail "Rust $required or newer is needed, this is $found; update it $skip_hint"
    fi
    say 'building the native library'
    open_scratch
    # The path comes from cargo itself: its configuration may put the target directory, or a
    # folder for the target triple, anywhere.
    cargo build --release --locked --package erlmcp_nif \
        --message-format=json-render-diagnostics >"$scratch/messages" ||
        fail "the native library does not build, see above $skip_hint"
    built=$(sed -n '/"name":"erlmcp_native"/s/.*"filenames":\["\([^"]*\)".*/\1/p' \
        "$scratch/messages")
    [ -f "$built" ] || fail "Rust makes no shared library for this platform $skip_hint"
    install_library "$built" "$inputs"
}

# Beams of another OTP release may not load, so the release is an input.
takeover_inputs() {
    cat "${ERLANG_ROOT_DIR:-/nonexistent}"/releases/*/OTP_VERSION 2>/dev/null || :
    find erlang -type f \( -name '*.hrl' -o -path '*/takeover/*.erl' \) | checksum
}

takeover_is_current() {
    [ -f "$takeover_stamp" ] && [ "$(cat "$takeover_stamp")" = "$1" ] || return 1
    for source in $sources; do
        [ -f "$takeover/$(basename "$source" .erl).beam" ] || return 1
    done
}

# These carry the names of modules of erlmcp: in ebin they would be duplicates, which dialyzer
# and releases refuse.
build_takeover() {
    sources=$(find erlang -path "*/takeover/*.erl" | sort)
    inputs=$(takeover_inputs)
    if takeover_is_current "$inputs"; then
        return
    fi
    open_scratch
    for source in $sources; do
        "${ERLC:-erlc}" +debug_info -I erlang -o "$scratch" "$source" ||
            fail "$source does not compile, see above"
    done
    rm -rf "$takeover"
    mkdir -p "$takeover"
    for source in $sources; do
        mv -f "$scratch/$(basename "$source" .erl).beam" "$takeover"
    done
    printf '%s\n' "$inputs" >"$takeover_stamp"
}

case ${ERLMCP_NATIVE_SKIP:-0} in
    0)
        if [ -n "${ERLMCP_NATIVE_PREBUILT:-}" ]; then
            take_prebuilt "$ERLMCP_NATIVE_PREBUILT"
        else
            build_library
        fi
        ;;
    *) remove_library 'ERLMCP_NATIVE_SKIP is set' ;;
esac
build_takeover
