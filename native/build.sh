#!/bin/sh
set -eu
cd "$(dirname "$0")/.."
mkdir -p priv
cargo build --release -p erlmcp_nif
cp target/release/liberlmcp_native.so priv/erlmcp_native.so
