#!/bin/bash
# lint.sh [SOURCE-DIR]: what can be checked about the source without running it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-.}" || exit 1
passed=0 failed=0

check() {
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then
		passed=$((passed + 1))
	else
		printf '%s\n%s\n' "lint: $what:" "$out"
		failed=$((failed + 1))
	fi
}

# Style remarks about the mdoc macros that an operating system's own manual would use do not concern us.
manual() { mandoc -T lint -W warning "$1"; }

# Each option of gatewayd.conf has its ".It" entry in the manual, and the manual describes nothing else.
options_documented() {
	local code manual
	code=$(sed -nE 's/^[[:space:]]*(OPTION|CFG_STR|CFG_STR_LIST|CFG_BOOL|CFG_INT)\("([a-z0-9-]+)".*/\2/p' gatewayd/conf.c | sort -u)
	manual=$(sed -nE 's/^\.It (Ic|Cm|Va) ([a-z0-9-]+).*/\2/p' doc/gatewayd.conf.5 | sort -u)
	[ -n "$code" ] || { echo "no option found in gatewayd/conf.c"; return 1; }
	diff <(echo "$code") <(echo "$manual") | sed -n 's/^< /not in doc\/gatewayd.conf.5: /p; s/^> /not in gatewayd\/conf.c: /p' | grep . && return 1
	return 0
}

# The project's own files never name the machine that they were written on.
no_private_paths() { ! grep -rnI -E '/(home|root)/[a-z]' --include='*.[chly]' --include='*.mk' --include='*.sh' common schema policy auth gatewayd admin; }

no_todo() { ! grep -rnwE 'TODO|FIXME|XXX' --include='*.[chly]' common schema policy auth gatewayd admin; }

shell_scripts() {
	local file
	for file in bootstrap .ci/run tests/*.sh packaging/lint/*.sh; do bash -n "$file" || return 1; done
}

check "layers" "$here/layers.sh" .
for page in doc/*.[1-8]; do
	[ -e "$page" ] || continue
	check "$page" manual "$page"
done
check "options of gatewayd.conf are documented" options_documented
check "no TODO in the source: do it, or file it" no_todo
check "no home directory in the source" no_private_paths
check "shell scripts parse" shell_scripts
echo "lint: $passed passed, $failed failed"
[ "$failed" = 0 ]
