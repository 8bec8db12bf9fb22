#!/bin/sh
# Installs what the tests, the benches and the demo need and this machine lacks: Erlang, rebar3,
# test libraries, npm and Python from Debian's packages; with the argument `browser' also Chromium,
# in which the tests look at the reports. Does nothing where all of it is there.
set -eu

missing=

need() {
    missing="$missing $1"
}

have_library() {
    erl -noshell -eval '
        [App] = init:get_plain_arguments(),
        halt(case code:lib_dir(list_to_atom(App)) of {error, _} -> 1; _ -> 0 end).
    ' -extra "$1"
}

if command -v erl >/dev/null; then
    for app in common_test crypto dialyzer edoc inets public_key runtime_tools ssl tools xmerl; do
        have_library "$app" || need "erlang-$(echo "$app" | tr _ -)"
    done
    for app in proper meck jiffy; do
        have_library "$app" || need "erlang-$app"
    done
else
    need 'erlang-base erlang-common-test erlang-crypto erlang-dev erlang-dialyzer erlang-edoc'
    need 'erlang-inets erlang-public-key erlang-runtime-tools erlang-ssl erlang-tools erlang-xmerl'
    need 'erlang-proper erlang-meck erlang-jiffy'
fi
command -v rebar3 >/dev/null || need rebar3
command -v cc >/dev/null || need 'gcc libc6-dev'
command -v git >/dev/null || need git
# For the MCP programs of others, which test/mcp_peers.sh installs.
command -v npm >/dev/null || need npm
python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
# The load generator of the benches.
command -v wrk >/dev/null || need wrk
if [ "${1:-}" = browser ]; then
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || need chromium
fi

command -v cargo >/dev/null ||
    echo 'setup: no cargo in PATH; get Rust from https://rustup.rs' >&2

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: this is no Debian; please install by hand:$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    command -v sudo >/dev/null || {
        echo "setup: to be run as root or with sudo: apt-get install$missing" >&2
        exit 1
    }
fi
echo "setup: installing from Debian's packages:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
