#!/bin/sh
# Checks the form of the Erlang files: no tabs, no white space at the end of a line, at most 100
# columns, a newline at the end, no empty line there.
set -eu
cd "$(dirname "$0")/.."

find erlang test bench rebar.config \( -name '*.erl' -o -name '*.hrl' -o -name '*.escript' \
    -o -name '*.app.src' -o -name 'rebar.config' \) -type f | sort | {
    status=0
    while read -r file; do
        # Columns are characters, not bytes, whatever the locale: continuation bytes do not count.
        LC_ALL=C awk -v file="$file" '
            function complain(what) { print file ":" NR ": " what; bad = 1 }
            /\t/ { complain("tab") }
            /[ \r]$/ { complain("white space at the end of the line") }
            {
                columns = $0
                gsub(/[\200-\277]/, "", columns)
                if (length(columns) > 100) complain("longer than 100 columns")
                last = $0
            }
            END {
                if (NR > 0 && last == "") complain("empty line at the end")
                exit bad
            }' "$file" || status=1
        if [ -n "$(tail -c 1 "$file")" ]; then
            echo "$file: no newline at the end"
            status=1
        fi
    done
    exit $status
}
