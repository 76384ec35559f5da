#!/bin/bash
# run-unit.sh PROGRAM...: runs each test program in turn, shows what failed, and adds their counts up.
# A program that runs no test, or that dies, has failed.
set -u
passed=0 failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# sum_of TEXT: adds up the numbers of cmocka's lines "[  TEXT  ] N test(s)".
sum_of() { sed -n "s/^\[  $1  \] \([0-9]*\) test(s).*/\1/p" "$out" | awk '{n += $1} END {print n + 0}'; }

for program in "$@"; do
	case $program in
	*/fuzz*) continue ;;
	esac
	"./$program" >"$out" 2>&1
	status=$?
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
