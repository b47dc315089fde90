#!/bin/sh
# In an image build: Python (3.11 or 3.12) and CA certificates from the distribution, where the base has none.
set -eu

apt_install() {
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
}

command -v apt-get >/dev/null || {
    echo "the base image has no apt-get: choose one of Debian or Ubuntu" >&2
    exit 1
}
missing=""
command -v python3 >/dev/null || missing="python3"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
# shellcheck disable=SC2086 # a list of package names
[ -z "$missing" ] || apt_install $missing

python3 -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || {
    echo "the base image has $(python3 --version): choose one with Python 3.11 or 3.12 (Debian 12, Ubuntu 24.04)" >&2
    exit 1
}
