#!/usr/bin/env bash
# Makes a virtual environment from a lock file; does nothing when that is done already.
#   local_test/setup.sh           .venv, for everything: local_test/requirements.lock
#   local_test/setup.sh cloud     .venv-cloud, for scripts/ that talk to AWS: local_test/cloud.lock
#   local_test/setup.sh --find    print the Python that would be used
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv lock=$root/local_test/requirements.lock cost="about 6 GB on disk; 1 to 3 minutes the first time"
if [ "$*" = cloud ]; then
  venv=$root/.venv-cloud lock=$root/local_test/cloud.lock cost="about 300 MB on disk; half a minute the first time"
  shift
fi
uv_lock=$root/docker/uv.lock
stamp=$venv/.complete

pythons="python3.11 python3.12 python3 python" missing="no Python 3.11 or 3.12 found" versions="((3, 11), (3, 12))"
# Of macOS the lock has all wheels for 14 and newer on Apple silicon with Python 3.12.
system=$(uname -s)
if [ "$system" = Darwin ] && [ "$venv" = "$root/.venv" ]; then
  pythons="python3.12 python3 python" missing="no Python 3.12 found" versions="((3, 12),)"
fi

say() { printf '[setup] %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# A name on PATH may be a shim that cannot run (pyenv), or a Python without venv (Debian's bare python3): try each.
find_python() {
  local name path found=""
  for name in ${PYTHON:-$pythons}; do
    while IFS= read -r path; do
      "$path" -c "import sys; sys.exit(sys.version_info[:2] not in $versions)" 2>/dev/null || continue
      found=$path
      "$path" -c 'import ensurepip, venv' 2>/dev/null || continue
      echo "$path"
      return
    done < <(type -aP "$name")
  done
  [ -z "$found" ] || fail "$found has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)."
  fail "$missing (looked for: ${PYTHON:-$pythons}): install one, or name it: PYTHON=/path/to/python3.12 $0"
}

# One line now in place of an installer's after a while.
if [ "$system" = Darwin ] && [ "$venv" = "$root/.venv" ]; then
  macos=$(sw_vers -productVersion 2>/dev/null || echo 14)
  if [ "$(uname -m)" != arm64 ] || [ "${macos%%.*}" -lt 14 ]; then
    fail "torch has no wheels for macOS $macos on $(uname -m), only for macOS 14 and newer on Apple silicon: use Linux, or 'setup.sh cloud' for the scripts that talk to AWS"
  fi
fi

if [ "$*" = --find ]; then
  find_python
  exit
fi
if [ "$*" = --help ] || [ "$*" = -h ]; then
  sed -n '2,5s/^# *//p' "$0"
  exit
fi
[ $# -eq 0 ] || { say "unknown argument $1: it takes cloud, --find, or nothing"; exit 2; }

# macOS has no sha256sum.
want=$({ cat "$lock" "$uv_lock" 2>/dev/null || true; } | { sha256sum 2>/dev/null || shasum -a 256; })
is_complete() { [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; }
if is_complete; then exit 0; fi

if [ -e "$venv" ] && [ ! -w "$venv" ]; then
  fail "$venv cannot be written by $(id -un): it belongs to $(stat -c %U "$venv" 2>/dev/null || echo another user); use a clone of your own"
fi

# One set-up at a time: a second one waits, then finds the work done.
if command -v flock >/dev/null; then
  exec 9<"$root/local_test"
  flock -n 9 || { say "another set-up is running, waiting for it"; flock 9; }
  if is_complete; then exit 0; fi
fi

# A finished environment is brought up to date. One without a stamp was interrupted (a package may be there
# in part, which no installer notices): it is made again, from uv's cache.
if [ -e "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then
  say "the requirements have changed: bringing $(basename "$venv") up to date"
  rm -f "$stamp"
else
  python=$(find_python)
  say "making $(basename "$venv") with $python ($("$python" -c 'import platform; print(platform.python_version())'))"
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail "could not make $venv with $python"
fi

# pip's own settings lead to the registry a company uses: uv does not read them. Its find-links are left out, because
# wheels on this machine (a CPU build of torch, say) would win over those that were locked.
pip() { PIP_FIND_LINKS='' PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip "$@"; }
setting() { pip config get "global.$1" 2>/dev/null || true; }
index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$(setting index-url)}}}
cert=${SSL_CERT_FILE:-${PIP_CERT:-$(setting cert)}}
unset UV_FIND_LINKS PIP_FIND_LINKS
[ -z "$index" ] || export UV_DEFAULT_INDEX=$index
[ -z "$cert" ] || export SSL_CERT_FILE=$cert
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-${PIP_DEFAULT_TIMEOUT:-60}}

way_out="the lines above say why; when the network is back, call this again"
if [ -e "$uv_lock" ]; then
  pip install --quiet --require-hashes -r "$uv_lock" || fail "uv could not be installed: $way_out"
else
  pip install --quiet uv || fail "uv could not be installed: $way_out"
fi
say "installing $(grep -c '==' "$lock") packages ($cost, seconds from uv's cache)"
# On a terminal uv draws its progress; in a log the list of 110 packages is left out.
uv() {
  if [ -t 2 ]; then "$venv/bin/uv" pip "$@"; else "$venv/bin/uv" pip "$@" 2>&1 | { grep -v '^ [+-] ' || true; }; fi >&2
}

# Two packages come as source with a C part that nothing here uses. A bare machine has no compiler, or not Python's
# headers: there the two are installed with that part empty, and modules of the same names in place of it.
c_parts="pyinstrument-cext sagemaker-training"
# The blocks of the lock that are (yes) or are not (no) those of the two.
blocks() { awk -v names=" $c_parts " -v want="$1" '/^[a-zA-Z]/ { split($1, name, "=="); mine = index(names, " " name[1] " ") ? "yes" : "no" } mine == want' "$lock"; }
can_compile() {
  blocks yes | grep -q . || return 0
  [ "$system" != Darwin ] || return 1 # its cc may be a dialog that offers to install one
  "$venv/bin/python" - <<'PYTHON'
import os, pathlib, shutil, sys, sysconfig
compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
headers = pathlib.Path(sysconfig.get_path("include"), "Python.h")
sys.exit(not (shutil.which(compiler) and headers.exists()))
PYTHON
}
# Python's bytecode is made at once, on all cores: where nobody may write it later (PYTHONDONTWRITEBYTECODE), every
# process would compile torch again, for ten seconds.
if can_compile; then
  uv sync --compile-bytecode --python "$venv/bin/python" --require-hashes "$lock" || fail "the packages could not be installed: $way_out"
else
  say "no C compiler with Python's headers to rely on here: leaving out the C parts of $c_parts, which are not used"
  substitutes=$root/local_test/no_compiler
  blocks no >"$venv/without.lock"
  blocks yes >"$venv/with.lock"
  uv sync --compile-bytecode --python "$venv/bin/python" --require-hashes "$venv/without.lock" || fail "the packages could not be installed: $way_out"
  # Not through the cache, where a machine that gets a compiler later would find them.
  CC=$substitutes/cc LDSHARED="$substitutes/cc -shared" uv install --compile-bytecode --python "$venv/bin/python" --no-cache --no-deps \
    --require-hashes -r "$venv/with.lock" || fail "the packages could not be installed: $way_out"
  for module in "$substitutes"/*.py; do
    name=$(basename "$module" .py)
    rm -f "$venv"/lib/python3.*/site-packages/"$name".*.so
    cp "$module" "$venv"/lib/python3.*/site-packages/
  done
fi
printf '%s\n' "$want" >"$stamp"
say "done in $SECONDS s"
