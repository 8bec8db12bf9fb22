#!/bin/sh
# `make demo', after its set-up: compiles the demo beside the application and runs it.
set -eu
cd "$(dirname "$0")/../.."

out=_build/demo/ebin
mkdir -p "$out"
erlc -o "$out" test/demo/*.erl test/test_certs.erl

# OTP 27 has a JSON module; before it the beam path uses jsx, as erlmcp does.
jsx=$(find _build/peers -type d -path '*/jsx-*/ebin' 2>/dev/null | head -n 1)
exec erl -noinput -pa _build/default/lib/erlmcp_native/ebin "$out" ${jsx:+"$jsx"} -s demo main
