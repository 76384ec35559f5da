#!/bin/bash
# run.sh SRCDIR SECONDS SOURCE...: builds every tests/fuzz/fuzz_*.c with libFuzzer and the sanitizers and runs each on its
# corpus and then for SECONDS on what it invents.  SOURCEs are those of the libraries; what a target does not need is not
# linked.  CLANG, CPPFLAGS and LIBS come from the environment.  Runs in the build directory.
set -u
srcdir=$1 seconds=$2
shift 2
[ -n "${CLANG:-}" ] || { echo "fuzz: clang was not found by configure" >&2; exit 1; }
flags="-std=gnu11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -w"
dir=tests/fuzz
mkdir -p $dir/obj

# find_source SOURCE: generated files are in the build directory, the others in the source directory.
find_source() {
	local c=${1%.[ly]}
	if [ "$c" != "$1" ]; then c=$c.c; fi
	if [ -f "$srcdir/$c" ]; then echo "$srcdir/$c"; else echo "$c"; fi
}

newest=$(find "$srcdir"/common "$srcdir"/policy "$srcdir"/schema "$srcdir"/auth "$srcdir"/gatewayd -name '*.h' -newer $dir/obj.stamp 2>/dev/null | head -n 1)
[ -f $dir/obj.stamp ] && [ -z "$newest" ] || rm -f $dir/obj/*.o
compile() {
	local object="$dir/obj/$(echo "$1" | tr / _).o" source
	source=$(find_source "$1")
	[ "$object" -nt "$source" ] && return 0
	# shellcheck disable=SC2086
	$CLANG $flags -fsanitize=fuzzer-no-link -I. -I"$srcdir" $CPPFLAGS -c "$source" -o "$object"
}
export -f compile find_source
export CLANG CPPFLAGS flags srcdir dir
printf '%s\n' "$@" | grep -v '\.h$' | xargs -P 2 -I {} bash -c 'compile {}' || { echo "fuzz: the libraries do not build" >&2; exit 1; }
touch $dir/obj.stamp
rm -f $dir/libfuzzed.a
ar crs $dir/libfuzzed.a $dir/obj/*.o

# Builds and runs one target; "ok NAME" or "failed NAME" goes to the list of results.
fuzz() {
	local target=$1 name corpus work
	name=$(basename "$target" .c)
	corpus="$srcdir/tests/fuzz/corpus/$name"
	work=$dir/$name.corpus
	mkdir -p "$work"
	[ -d "$corpus" ] || corpus=
	# shellcheck disable=SC2086
	if $CLANG $flags -fsanitize=fuzzer -I. -I"$srcdir" $CPPFLAGS "$target" -o $dir/"$name" $dir/libfuzzed.a $LIBS &&
		$dir/"$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -artifact_prefix=$dir/"$name"- \
			-print_final_stats=0 "$work" $corpus >$dir/"$name".log 2>&1; then
		echo "$name: $(find "$work" -type f | wc -l) inputs kept, $(sed -n 's/^Done \([0-9]* runs\).*/\1/p' $dir/"$name".log)"
		echo "ok $name" >>$dir/results
	else
		echo "$name: FAILED"
		tail -n 40 $dir/"$name".log
		echo "failed $name" >>$dir/results
	fi
}
export -f fuzz
export seconds LIBS
: >$dir/results
# Two at a time: each target is one thread.
printf '%s\n' "$srcdir"/tests/fuzz/fuzz_*.c | xargs -P 2 -I {} bash -c 'fuzz {}'
passed=$(grep -c '^ok' $dir/results) failed=$(grep -c '^failed' $dir/results)
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
