#!/bin/sh
# In an image build's builder stage: make_venv.sh VENV LOCK [uv pip options...] installs LOCK, by hash, into VENV.
set -eu

venv=$1 lock=$2
shift 2
# The optional secrets, see the head of the Dockerfile.
[ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca
# shellcheck disable=SC1091 # only there when the build is given one
[ ! -s /run/secrets/packages ] || . /run/secrets/packages

uv=/opt/uv/bin/uv
# A wheel of CUDA's libraries is some 500 MB: a slow line needs more than uv's 30 s.
export UV_HTTP_TIMEOUT=300
# Bytecode that stays valid when the files' times change on their way through an image's layers.
export PYC_INVALIDATION_MODE=UNCHECKED_HASH
[ -d "$venv" ] || $uv venv --quiet --no-cache --python "$(command -v python3)" "$venv"
$uv pip install --python "$venv" --no-cache --require-hashes --compile-bytecode -r "$lock" "$@"
$uv pip check --python "$venv"

# uv's lock file, which anybody could write.
rm -f "$venv/.lock"

# Libraries to link against, where nothing links, and the tests that some packages install (compiled: twice their size).
find "$venv" -name '*.a' -delete
# numpy.testing, which SciPy and NNCF import, takes a module out of numpy._core.tests.
for package in gevent mpmath networkx numpy pandas psutil scipy sympy zope; do
    find "$venv"/lib/python3.*/site-packages/"$package" -depth -type d -name tests ! -path '*/numpy/_core/tests' \
        -exec rm -r {} + 2>/dev/null || true
done
find "$venv"/lib/python3.*/site-packages/numpy/_core/tests -name 'test_*.py' -delete 2>/dev/null || true
