#!/bin/bash
# layers.sh [SOURCE-DIR]: arrows between folders point down only.  Prints each include that points elsewhere.
set -u
cd "${1:-.}" || exit 1
status=0

# may_include FOLDER ALLOWED...: sources in FOLDER include headers of these folders alone (and the system's).
may_include() {
	local folder=$1 allowed bad
	shift
	allowed=$(IFS='|' && echo "$*")
	bad=$(grep -rEn '^[[:space:]]*#[[:space:]]*include[[:space:]]*"[^"]*/' --include='*.[chly]' "$folder" |
		grep -Ev "\"($allowed)/[^\"]*\"")
	[ -z "$bad" ] && return
	echo "$folder may include only from: $*" >&2
	echo "$bad" >&2
	status=1
}

may_include common common
may_include schema schema common
may_include policy policy common
may_include auth auth common
may_include gatewayd gatewayd policy auth schema common
may_include admin admin policy auth schema common

# Every .c begins with "config.h", which decides what the system's headers declare.
while read -r file; do
	first=$(grep -m 1 -E '^[[:space:]]*#[[:space:]]*include' "$file")
	if [ -n "$first" ] && [ "$first" != '#include "config.h"' ]; then
		echo "$file: the first include is not \"config.h\"" >&2
		status=1
	fi
done < <(find common schema policy auth gatewayd admin -name '*.c')
exit $status
