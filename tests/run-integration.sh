#!/bin/bash
# run-integration.sh SOURCE-DIR BUILD-DIR [PYTEST-ARGUMENT...]: Debian's pytest, whatever other Python is in PATH.
set -eu
source_dir=$(cd "$1" && pwd)
GATEWAYD_BUILD=$(cd "$2" && pwd)
shift 2
export GATEWAYD_BUILD PYTHONDONTWRITEBYTECODE=1
# The gateway and its thousand clients share these; each process asks for no more than it may have.
ulimit -S -n "$(ulimit -H -n)"
cd "$source_dir/tests/integration"
exec /usr/bin/python3 -m pytest -p no:cacheprovider -q -n "${GATEWAYD_TEST_JOBS:-3}" "$@"
