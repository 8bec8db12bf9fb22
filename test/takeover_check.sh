#!/bin/sh
# Analyses erlang/takeover, which rebar3 does not see, together with the modules that it calls.
# Wants what `rebar3 as check dialyzer' left in _build/check.
set -eu
cd "$(dirname "$0")/.."

ls erlang/takeover/*.erl >/dev/null 2>&1 || exit 0

ebin=_build/check/lib/erlmcp_native/ebin
out=_build/check/takeover
rm -rf "$out"
mkdir -p "$out"
erlc -Werror +debug_info +warn_missing_spec -pa "$ebin" -I erlang -o "$out" erlang/takeover/*.erl
dialyzer --plt _build/check/rebar3_*_plt -Wunknown -Wunmatched_returns "$ebin" "$out"
