#!/bin/bash
# Every test, in the order in which a failure tells most.  build/ and build-san/ are configured (./bootstrap check does it).
# All of them run even when one fails; the exit code tells whether any did.
set -u
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
failed=""

step() {
	local what=$1 start=$SECONDS
	shift
	echo
	echo "== $what"
	"$@" || failed+="; $what"
	echo "== $what: $((SECONDS - start)) s"
}

# Two calls: "all" is a make of its own, which must not build a library while another does.
make_all() { make -s -C "$1" -j"$jobs" all && make -s -C "$1" -j"$jobs" check-programs; }

step "build" make_all build
[ -z "$failed" ] || exit 1
step "unit tests" make -s -C build check-unit
step "build with sanitizers" make_all build-san
# What is random and long has been seen in numbers already.
step "unit tests with sanitizers" env POLICY_PAIRS=50000 make -s -C build-san check-unit
step "lint" make -s -C build lint
step "fuzzing, briefly" make -s -C build fuzz-quick
step "integration tests with sanitizers" tests/run-integration.sh . build-san -m "not long"
step "integration tests" tests/run-integration.sh . build
step "real programs" tests/run-interop.sh . build

echo
if [ -n "$failed" ]; then
	echo "FAILED: ${failed#; }"
	exit 1
fi
echo "Everything passed in $SECONDS s."
