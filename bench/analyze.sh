#!/bin/sh
# Runs all analyses and writes _build/analysis/report.html and report.json.
#
#   bench/analyze.sh
#
#   ONLY            the analyses to run, all otherwise
#   QUICK           1 for a first look
#   BEFORE          an earlier report.json to compare with
#   MEMORY_S        for how long memory is watched, 60 otherwise
#   REBAR_BASE_DIR  where the project is compiled to, _build otherwise
set -eu
cd "$(dirname "$0")/.."

build=${REBAR_BASE_DIR:-_build}
out=$build/analysis

fail() {
    echo "analyze: $*" >&2
    exit 1
}

if command -v rebar3 >/dev/null; then
    rebar3 compile
fi
ebin=$build/default/lib/erlmcp_native/ebin
[ -f "$ebin/erlmcp_native.app" ] || fail "$ebin: the project is not compiled"

jsx=
for dir in _build/peers/lib/jsx-*/ebin; do
    [ -d "$dir" ] && jsx=$dir
done
[ -n "$jsx" ] || fail 'no jsx in _build/peers: run make peers'

rm -rf "$out/ebin"
mkdir -p "$out/ebin"
erlc -Werror +warn_missing_spec -pa "$ebin" -pa "$jsx" -o "$out/ebin" bench/*.erl

# 10,000 connections, both ends, and some room.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -H -n)"

ANALYSIS_COMMIT=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || ANALYSIS_COMMIT="$ANALYSIS_COMMIT, modified"
export ANALYSIS_COMMIT

exec erl -noinput -pa "$ebin" "$jsx" "$out/ebin" -run bench_analyze main -extra "$out"
