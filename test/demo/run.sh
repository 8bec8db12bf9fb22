#!/bin/sh
# `make demo', after its set-up: compiles the demo beside the application and runs it.
set -eu
cd "$(dirname "$0")/../.."

out=_build/demo/ebin
rebar3 compile
mkdir -p "$out"
erlc -pa _build/default/lib/erlmcp_native/ebin -o "$out" test/demo/*.erl test/test_certs.erl

# OTP 27 has a JSON module; before it jsx is used, as erlmcp does.
ERL_LIBS=$(pwd)/_build/peers/lib
export ERL_LIBS
exec erl -noinput -pa _build/default/lib/erlmcp_native/ebin "$out" -s demo main
