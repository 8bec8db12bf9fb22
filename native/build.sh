#!/bin/sh
# The compile hook of rebar.config: puts the native library and the port program into priv/, and
# the modules that stand in for erlmcp's own into priv/takeover/. Silent when all are up to date.
#
#   ERLMCP_NATIVE_SKIP=1         nothing native; what an earlier build left is removed
#   ERLMCP_NATIVE_PREBUILT=FILE  take FILE instead of building, and the port program where one lies
#                                beside it; relative to the root project
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
program=priv/erlmcp_native_port
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

# The stamp names what the two were made from and the two themselves: one that was put in its
# place by hand counts as stale.
stamp() {
    printf '%s\n%s\n' "$1" "$(cksum <"$2")"
    if [ -f "$3" ]; then
        cksum <"$3"
    else
        echo 'no program'
    fi
}

library_is_current() {
    [ -f "$library" ] && [ -f "$library_stamp" ] || return 1
    [ "$(cat "$library_stamp")" = "$(stamp "$1" "$library" "$program")" ]
}

# Renamed into place: a running node keeps the files that it has mapped.
install_library() {
    cp "$1" "$scratch/library"
    chmod 755 "$scratch/library"
    if [ -f "$2" ]; then
        cp "$2" "$scratch/program"
        chmod 755 "$scratch/program"
    fi
    stamp "$3" "$scratch/library" "$scratch/program" >"$scratch/stamp"
    mv -f "$scratch/library" "$library"
    rm -f "$program"
    [ ! -f "$scratch/program" ] || mv -f "$scratch/program" "$program"
    mv -f "$scratch/stamp" "$library_stamp"
}

remove_library() {
    if [ -f "$library" ] || [ -f "$program" ]; then
        rm -f "$library" "$program" "$library_stamp"
        say "removed $library, $1"
    fi
}

take_prebuilt() {
    case $1 in
        /*) file=$1 ;;
        *) file=${REBAR_ROOT_DIR:-$started_in}/$1 ;;
    esac
    [ -f "$file" ] && [ -r "$file" ] || fail "ERLMCP_NATIVE_PREBUILT: no such file: $file"
    beside=$(dirname "$file")/erlmcp_native_port
    inputs=$(stamp prebuilt "$file" "$beside")
    if ! library_is_current "$inputs"; then
        open_scratch
        install_library "$file" "$beside" "$inputs"
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
    cargo build --release --locked --package erlmcp_nif --package erlmcp_port \
        --message-format=json-render-diagnostics >"$scratch/messages" ||
        fail "the native library does not build, see above $skip_hint"
    built=$(sed -n '/"name":"erlmcp_native"/s/.*"filenames":\["\([^"]*\)".*/\1/p' \
        "$scratch/messages")
    [ -f "$built" ] || fail "Rust makes no shared library for this platform $skip_hint"
    executable=$(sed -n '/"name":"erlmcp_native_port"/s/.*"executable":"\([^"]*\)".*/\1/p' \
        "$scratch/messages")
    install_library "$built" "$executable" "$inputs"
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
