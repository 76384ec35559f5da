#!/bin/bash
# run-interop.sh SOURCE-DIR BUILD-DIR [PYTEST-ARGUMENT...]: real programs through the gateway.  With INTEROP_TABLE=FILE the
# results are written there as a table.
set -eu
source_dir=$(cd "$1" && pwd)
GATEWAYD_BUILD=$(cd "$2" && pwd)
[ -z "${INTEROP_TABLE:-}" ] || INTEROP_TABLE=$(realpath -m "$INTEROP_TABLE")
shift 2
export GATEWAYD_BUILD INTEROP_TABLE="${INTEROP_TABLE:-}" PYTHONDONTWRITEBYTECODE=1
cd "$source_dir/tests/interop"
exec /usr/bin/python3 -m pytest -p no:cacheprovider -q "$@"
