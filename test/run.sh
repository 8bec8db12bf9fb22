#!/bin/sh
# Runs the tests and says last which failed and how many passed and failed in all.
#
#   sh test/run.sh [rust] [ct] [properties]      all three by default
#
# A runner that ends with an error, or that ran nothing, counts as one failure, whatever its
# output says.
set -eu
cd "$(dirname "$0")/.."

logs=_build/test-logs
passed=0
failed=0
mkdir -p "$logs"

# Shows the output while it is kept: a pipe would hide the exit status.
logged() {
    name=$1
    shift
    { "$@" 2>&1 && echo 0 >"$logs/$name.status" || echo $? >"$logs/$name.status"; } |
        tee "$logs/$name.raw"
    sed 's/\x1b\[[0-9;]*m//g' "$logs/$name.raw" >"$logs/$name.log"
}

# Each prints PASSED FAILED SKIPPED for the log of its runner.
count_rust() {
    awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
        END { print passed + 0, failed + 0, ignored + 0 }' "$1"
}

# Cases that Common Test skips of itself are those whose set-up failed.
count_ct() {
    awk '
        /^(All|Failed|Skipped|Passed) [0-9]+ .*tests/ {
            passed = failed = skipped = 0
            if (match($0, /All [0-9]+ tests passed/)) passed = number("All ")
            if (match($0, /Passed [0-9]+ tests/)) passed = number("Passed ")
            if (match($0, /Failed [0-9]+ tests/)) failed = number("Failed ")
            if (match($0, /Skipped [0-9]+ \([0-9]+, [0-9]+\)/)) {
                split(substr($0, RSTART, RLENGTH), part, /[(,)]/)
                skipped = part[2] + 0
                failed += part[3]
            }
        }
        function number(word) { return substr($0, RSTART + length(word), RLENGTH) + 0 }
        END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

count_properties() {
    awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed = $1; failed = $3 }
        END { print passed + 0, failed + 0, 0 }' "$1"
}

# Each prints a line for each test that its runner counts as failed.
failed_rust() {
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$1"
}

# A case that is skipped says why on the line below its name.
failed_ct() {
    awk '
        /%%% .* ==> .*: FAILED$/ { print name() }
        /==> \{tc_auto_skip,/ && skipped { print skipped " (skipped)" }
        { skipped = /%%% .* ==> .*: SKIPPED$/ ? name() : "" }
        function name(line) {
            line = $0
            sub(/^.*%%% /, "", line)
            sub(/: [A-Z]+$/, "", line)
            sub(/ ==> /, " ", line)
            return line
        }' "$1"
}

failed_properties() {
    awk '/^[a-z0-9_]+_props:prop_/ { name = $1 } /^FAILED: / { print name }' "$1"
}

tally() {
    status=$(cat "$logs/$1.status")
    # shellcheck disable=SC2046
    set -- "$1" $("count_$1" "$logs/$1.log")
    complaint=
    if [ $(($2 + $3)) = 0 ]; then
        complaint=', it ran no test'
        set -- "$1" "$2" 1 "$4"
    elif [ "$status" != 0 ] && [ "$3" = 0 ]; then
        complaint=", it ended with status $status"
        set -- "$1" "$2" 1 "$4"
    fi
    passed=$((passed + $2))
    failed=$((failed + $3))
    summary="$summary$1: $2 passed, $3 failed, $4 skipped$complaint
"
    "failed_$1" "$logs/$1.log" | sed "s/^/failed: $1 /" >>"$logs/failed"
}

# The NIF crate wants the functions of a VM: the Common Test suites are its tests.
run_rust() {
    logged rust cargo test --workspace --exclude erlmcp_nif --locked
}

run_ct() {
    logged ct rebar3 ct
}

run_properties() {
    logged properties escript test/properties.escript _build/test/lib/erlmcp_native
}

if [ -d _build/peers/lib ]; then
    ERL_LIBS=$(pwd)/_build/peers/lib${ERL_LIBS:+:$ERL_LIBS}
    export ERL_LIBS
fi

[ $# -gt 0 ] || set -- rust ct properties
summary=
: >"$logs/failed"
for runner in "$@"; do
    "run_$runner"
    tally "$runner"
done
printf '\n%s' "$summary"
cat "$logs/failed"
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
