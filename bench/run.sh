#!/bin/sh
# Runs the benchmarks: all but the soaks, or those of the cases named; `core' stands for the
# criterion benches of the Rust core. Results go to _build/bench/results.json.
#
#   bench/run.sh [CASE...]
#
#   REBAR_BASE_DIR  where the project is compiled to, _build otherwise
#   SOAK_SECONDS    how long each soak takes, 600 otherwise
set -eu
cd "$(dirname "$0")/.."

build=${REBAR_BASE_DIR:-_build}
out=$build/bench
set -- ${1:+"$@"}

fail() {
    echo "bench: $*" >&2
    exit 1
}

core() {
    if command -v cargo >/dev/null && cargo --version >/dev/null 2>&1; then
        cargo bench --locked -p erlmcp_core --bench frame --bench json -- \
            --warm-up-time 0.1 --measurement-time 0.3 --noplot
    else
        echo 'bench: no Rust in PATH, the benches of the core are left out'
    fi
}

[ "$(uname -s)" = Linux ] || fail 'CPU time and memory are read from /proc: Linux only'

case ${1:-} in
    core)
        core
        exit
        ;;
    '') core ;;
esac

if command -v rebar3 >/dev/null; then
    rebar3 compile
fi
ebin=$build/default/lib/erlmcp_native/ebin
[ -f "$ebin/erlmcp_native.app" ] || fail "$ebin: the project is not compiled"

peers=
for peer in jsx cowboy ranch cowlib gun; do
    found=
    for dir in _build/peers/lib/"$peer"-*/ebin; do
        [ -d "$dir" ] && found=$dir
    done
    [ -n "$found" ] || fail "no $peer in _build/peers: run make peers"
    peers="$peers $found"
done
command -v wrk >/dev/null || fail 'no wrk in PATH: run make setup'

rm -rf "$out/ebin"
mkdir -p "$out/ebin"
erlc -Werror +warn_missing_spec -pa "$ebin" -o "$out/ebin" bench/*.erl
erlc -Werror -o "$out/ebin" test/test_certs.erl
if command -v cargo >/dev/null && cargo --version >/dev/null 2>&1; then
    cargo build --locked --release -p erlmcp_core --example http_echo
fi

# 10,000 connections, and some room.
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -H -n)"

BENCH_COMMIT=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || BENCH_COMMIT="$BENCH_COMMIT, modified"
BENCH_RUSTC=$(rustc --version 2>/dev/null || echo unknown)
export BENCH_COMMIT BENCH_RUSTC

# shellcheck disable=SC2086
exec erl -noinput -pa "$ebin" $peers "$out/ebin" -run bench main -extra "$out/results.json" "$@"
