#!/bin/sh
# In an image build's builder stage: uv (pinned, by hash) and the Debian packages that the arguments name, with Python's
# headers if a compiler is among them. Nothing of that stage but /opt/venv gets into the image.
set -eu

packages="$*"
python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
case " $packages " in *" gcc "*)
    headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -e "$headers/Python.h" ] || packages="$packages python3-dev" ;;
esac
if [ -n "$packages" ]; then
    apt-get update -q
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages
fi

# The optional secrets, see the head of the Dockerfile.
[ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca
# shellcheck disable=SC1091 # only there when the build is given one
[ ! -s /run/secrets/packages ] || . /run/secrets/packages
python3 -m venv /opt/uv
/opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r "$(dirname "$0")/uv.lock"
