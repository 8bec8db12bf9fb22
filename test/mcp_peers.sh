#!/bin/sh
# Puts the MCP programs of others that we are tested with into _build/mcp_peers, at the versions
# that test/mcp_peers/ pins: Node and what runs on it (the conformance suites, the TypeScript SDK,
# a server), the Python SDKs in a virtual environment each, and a server on the Rust SDK. Nothing
# is installed outside of it, and what is there already is left alone. No network is needed then.
set -eu
cd "$(dirname "$0")/.."

pins=test/mcp_peers
peers=_build/mcp_peers
mkdir -p "$peers"

# done_with NAME FILE...: whether NAME has been made from the files as they are.
done_with() {
    [ "$(cat "$peers/.$1" 2>/dev/null)" = "$(stamp "$@")" ]
}

mark() {
    stamp "$@" >"$peers/.$1"
}

# The name of the folder, since a virtual environment cannot be moved.
stamp() {
    shift
    pwd -P
    cksum "$@"
}

need() {
    command -v "$1" >/dev/null || {
        echo "mcp_peers: no $1 in PATH; the tests with other MCP programs need it" >&2
        exit 1
    }
}

install_node() {
    done_with node "$pins/package.json" "$pins/package-lock.json" && return
    need npm
    echo 'mcp_peers: installing Node and what runs on it from the npm registry'
    mkdir -p "$peers/node"
    cp "$pins/package.json" "$pins/package-lock.json" "$peers/node/"
    # No package may run a script of its own: Node itself is a plain file of its package.
    npm ci --prefix "$peers/node" --ignore-scripts --no-audit --no-fund --loglevel=error
    mark node "$pins/package.json" "$pins/package-lock.json"
}

install_python() {
    done_with "$1" "$pins/requirements-$1.txt" && return
    need python3
    echo "mcp_peers: installing the Python packages of $1 from PyPI"
    rm -rf "$peers/$1"
    python3 -m venv "$peers/$1"
    "$peers/$1/bin/python" -m pip install -q --disable-pip-version-check \
        -r "$pins/requirements-$1.txt"
    mark "$1" "$pins/requirements-$1.txt"
}

install_rmcp() {
    server=$pins/rmcp_server
    done_with rmcp "$server/Cargo.toml" "$server/Cargo.lock" "$server/src/main.rs" && return
    need cargo
    echo 'mcp_peers: building a server on the Rust SDK'
    CARGO_TARGET_DIR=$peers/rmcp cargo build --quiet --release --locked \
        ${JOBS:+--jobs "$JOBS"} --manifest-path "$server/Cargo.toml"
    mark rmcp "$server/Cargo.toml" "$server/Cargo.lock" "$server/src/main.rs"
}

install_node
for name in mcp1 mcp2 fastmcp prometheus; do
    install_python "$name"
done
install_rmcp
