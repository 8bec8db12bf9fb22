#!/bin/sh
# Checks that the Rust code compiles for macOS: types alone, nothing is linked or run. The C and
# the assembly of dependencies would want Apple's headers; nothing reads what is made of them here,
# so a compiler stands in for theirs that makes empty files.
#
#   CHECK_TARGET   aarch64-apple-darwin otherwise
set -eu
cd "$(dirname "$0")/.."

target=${CHECK_TARGET:-aarch64-apple-darwin}
variable=$(echo "$target" | tr - _)
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

cat >"$tools/cc" <<'CC'
#!/bin/sh
while [ $# -gt 0 ]; do
    [ "$1" != -o ] || : >"$2"
    shift
done
CC
cat >"$tools/ar" <<'AR'
#!/bin/sh
for file; do
    case $file in *.a) : >"$file" ;; esac
done
AR
chmod +x "$tools/cc" "$tools/ar"

rustup target add "$target"
env "CC_$variable=$tools/cc" "AR_$variable=$tools/ar" \
    cargo clippy --locked --workspace --target "$target" -- -D warnings
