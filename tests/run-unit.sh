#!/bin/bash
# run-unit.sh PROGRAM...: runs each test program, as many at a time as there are processors, shows what failed, and adds
# their counts up.  A program that runs no test, or that dies, has failed.
set -u
passed=0 failed=0
outs=$(mktemp -d)
trap 'rm -rf "$outs"' EXIT
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# sum_of TEXT: adds up the numbers of cmocka's lines "[  TEXT  ] N test(s)".
sum_of() { sed -n "s/^\[  $1  \] \([0-9]*\) test(s).*/\1/p" "$out" | awk '{n += $1} END {print n + 0}'; }

# run PROGRAM: its output and how it ended, in files of its name.
run() {
	local out=$outs/${1//\//_}
	"./$1" >"$out" 2>&1
	echo $? >"$out.status"
}
export -f run
export outs
printf '%s\n' "$@" | xargs -P "$(nproc)" -I {} bash -c 'run {}'

for program in "$@"; do
	out=$outs/${program//\//_}
	status=$(cat "$out.status")
	p=$(sum_of PASSED)
	f=$(sum_of FAILED)
	if [ "$status" != 0 ] && [ "$f" = 0 ]; then f=1; fi
	if [ "$p" = 0 ] && [ "$f" = 0 ]; then
		echo "$program ran no test" >>"$out"
		f=1
	fi
	if [ "$f" != 0 ]; then
		grep -v '^\[\( RUN \|       OK\)' "$out" | tail -n 200
		echo "$program ended with $status"
	fi
	printf '%-40s %4d passed, %d failed\n' "$program" "$p" "$f"
	passed=$((passed + p))
	failed=$((failed + f))
done
echo "unit: $passed passed, $failed failed"
[ "$passed" -gt 0 ] && [ "$failed" = 0 ]
