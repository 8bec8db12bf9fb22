#!/bin/sh
# Checks the direction of dependencies that docs/design.md promises.
set -eu
cd "$(dirname "$0")/.."

status=0

complain() {
    echo "structure: $*" >&2
    status=1
}

# The core is also the core of programs outside of a VM.
tree=$(cargo tree --locked --package erlmcp_core --edges normal,build --prefix none)
case $tree in
    *rustler*) complain 'erlmcp_core depends on rustler' ;;
esac

# The native module cannot be replaced in a running node, and its calls fail where it is not
# loaded: only these know when it is. The path behaviour asks whether it is loaded, nif_path,
# nif_http and nif_http_client are the path itself, json picks the native codec, log and metrics_core
# read what the native side has to tell.
allowed='erlmcp_native_path erlmcp_native_nif_path erlmcp_native_nif_http
erlmcp_native_nif_http_client erlmcp_native_json erlmcp_native_log erlmcp_native_metrics_core'
for file in $(grep -lE '(^|[^a-z_])erlmcp_native_nif:' erlang/*.erl erlang/takeover/*.erl \
    2>/dev/null || :); do
    module=$(basename "$file" .erl)
    case " $(echo $allowed) " in
        *" $module "*) ;;
        *) complain "$file calls erlmcp_native_nif" ;;
    esac
done

# A module of erlmcp's name in ebin is a duplicate in every project that has both.
for file in erlang/takeover/*.erl; do
    [ ! -f "erlang/$(basename "$file")" ] ||
        complain "$(basename "$file") is in erlang/ and in erlang/takeover/"
done

exit $status
