#!/usr/bin/env bash
# Builds the images; see --help. Runs on bash 3.2 too, the one that macOS has.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/build.sh [train|serve|serve-torch|all] [options]

Builds byoc-train and byoc-serve (all, the default), or one image, with the tag VERSION-CONTENT: the version from
pyproject.toml and a hash of all files that go into the image. The last lines on stdout are a table of names and sizes.

  --tag T            use this tag instead
  --base-train I     base image for training   (BYOC_BASE_TRAIN, default: CUDA 13.0 on Ubuntu 24.04)
  --base-serve I     base image for serving    (BYOC_BASE_SERVE, default: slim Python 3.11 on Debian bookworm)
                     any Debian or Ubuntu image, with Python 3.11 or 3.12 in it or to be had from its packages
  --ca-bundle F      certificates to trust while packages are downloaded: the CA of a proxy that inspects TLS.
                     Given to the build as a secret, part of no layer          (BYOC_CA_BUNDLE)
  --network N        network of the build's RUN steps, such as host            (BYOC_NETWORK)
  --torch-index URL  package index with a CPU build of torch, for serve-torch  (BYOC_TORCH_INDEX, default: PyTorch's)
  --platform P       default linux/amd64, whatever this machine is
  --content          build nothing, print the content hash of one image (its label byoc.content)
  -h, --help

PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST, UV_DEFAULT_INDEX, UV_INDEX and UV_INSECURE_HOST are given to the
build as a secret too, where they are set; HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Docker's predefined build arguments.

Examples:
  scripts/build.sh                                                     both images
  scripts/build.sh serve --tag dev                                     byoc-serve:dev
  scripts/build.sh --ca-bundle /etc/ssl/certs/ca-certificates.crt --network host        behind a company's proxy
  scripts/build.sh train --base-train ubuntu:24.04                     no CUDA base, for a machine without GPU
  scripts/build.sh --content train                                     a1b2c3d4e5f6
TEXT
}

die() { echo "build.sh: $*" >&2; exit 1; }
wrong() { echo "build.sh: $*; see scripts/build.sh --help" >&2; exit 2; }

cd "$(dirname "$0")/.."

target="" tag="" content_only="" platform=linux/amd64
base_train=${BYOC_BASE_TRAIN:-} base_serve=${BYOC_BASE_SERVE:-}
ca_bundle=${BYOC_CA_BUNDLE:-} network=${BYOC_NETWORK:-} torch_index=${BYOC_TORCH_INDEX:-}

while [ $# -gt 0 ]; do
    case $1 in
        --tag | --base-train | --base-serve | --ca-bundle | --network | --torch-index | --platform)
            [ -n "${2:-}" ] || wrong "$1 needs a value"
            name=$(echo "${1#--}" | tr - _)
            printf -v "$name" %s "$2"
            shift 2 ;;
        --content) content_only=1; shift ;;
        -h | --help) usage; exit 0 ;;
        train | serve | serve-torch | all)
            [ -z "$target" ] || wrong "one image or 'all', not both '$target' and '$1'"
            target=$1; shift ;;
        *) wrong "unknown argument '$1'" ;;
    esac
done
target=${target:-all}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
[ -n "$version" ] || die "pyproject.toml has no line 'version = \"...\"'"

# What goes into an image, the base apart. Kept in step with the COPY lines of the Dockerfiles by a test.
files_of() {
    local common="docker/install_python.sh docker/install_builder.sh docker/make_venv.sh docker/uv.lock container_serve"
    case $1 in
        train) echo "$common docker/train.Dockerfile docker/train.lock docker/trim_train.sh docker/train container_train" ;;
        serve) echo "$common docker/serve.Dockerfile docker/serve.lock docker/serve" ;;
        serve-torch) echo "$(files_of serve) docker/serve-torch.lock" ;;
    esac
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

content_of() {
    local file
    # shellcheck disable=SC2046 # a list of paths without blanks
    find $(files_of "$1") -type f ! -name '*.pyc' | LC_ALL=C sort | {
        echo "$version"
        while read -r file; do sha256 "$file"; done
    } | sha256 | cut -c1-12
}

if [ -n "$content_only" ]; then
    [ "$target" != all ] || wrong "--content needs one image: train, serve or serve-torch"
    content_of "$target"
    exit
fi

case $tag in *[!A-Za-z0-9_.-]* | [.-]*) wrong "'$tag' is no image tag: letters, digits and _ . -" ;; esac
if [ -n "$ca_bundle" ]; then
    [ -r "$ca_bundle" ] || die "the CA bundle '$ca_bundle' cannot be read"
    grep -q 'BEGIN CERTIFICATE' "$ca_bundle" || die "the CA bundle '$ca_bundle' holds no PEM certificate"
fi

# A client that can do BuildKit: one with the buildx plugin, or one older than 23, which speaks it by itself. A newer
# client without the plugin falls back to the legacy builder, which has no secrets.
find_client() {
    local release
    command -v docker >/dev/null || die "no docker client on PATH: install Docker, or use './local_test/run.sh --engine process'"
    while read -r docker; do
        if "$docker" buildx version >/dev/null 2>&1; then
            builder=(buildx build --provenance=false --sbom=false --output "type=docker,oci-mediatypes=false")
            return
        fi
        release=$("$docker" --version | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
        if [ "${release:-99}" -lt 23 ]; then
            builder=(build)
            return
        fi
    done < <(type -ap docker)
    die "no docker client here can use BuildKit: install its buildx plugin (docker-buildx-plugin)"
}
docker="" builder=()
find_client
"$docker" version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
    die "no Docker daemon answers: start it, or use './local_test/run.sh --engine process' ($("$docker" version 2>&1 >/dev/null | tail -n 1))"

# Where packages come from goes in as a secret: such URLs often hold a password.
secrets=$(mktemp)
trap 'rm -f "$secrets"' EXIT
export_line() { printf "export %s='%s'\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\''/g")" >> "$secrets"; }
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX UV_INSECURE_HOST; do
    [ -z "${!name:-}" ] || export_line "$name" "${!name}"
done
# pip installs uv, uv the rest: whoever has set one of them means both.
[ -n "${UV_DEFAULT_INDEX:-}" ] || [ -z "${PIP_INDEX_URL:-}" ] || export_line UV_DEFAULT_INDEX "$PIP_INDEX_URL"
[ -n "${PIP_INDEX_URL:-}" ] || [ -z "${UV_DEFAULT_INDEX:-}" ] || export_line PIP_INDEX_URL "$UV_DEFAULT_INDEX"

build() {
    local image=$1 file=docker/serve.Dockerfile base=$base_serve content revision name
    [ "$image" != train ] || file=docker/train.Dockerfile base=$base_train
    content=$(content_of "$image")
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    # shellcheck disable=SC2046 # a list of paths without blanks
    [ "$revision" = unknown ] || [ -z "$(git status --porcelain -- $(files_of "$image"))" ] || revision=$revision-changed
    name=byoc-$image:${tag:-$version-$content}

    set -- --file "$file" --platform "$platform" --tag "$name" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" --build-arg CONTENT="$content"
    [ "$image" = train ] || set -- "$@" --target "$image"
    [ -z "$base" ] || set -- "$@" --build-arg BASE="$base"
    [ "$image" != serve-torch ] || [ -z "$torch_index" ] || set -- "$@" --build-arg TORCH_INDEX="$torch_index"
    [ -z "$network" ] || set -- "$@" --network "$network"
    [ -z "$ca_bundle" ] || set -- "$@" --secret id=ca,src="$ca_bundle"
    [ ! -s "$secrets" ] || set -- "$@" --secret id=packages,src="$secrets"
    echo "build.sh: building $name" >&2
    DOCKER_BUILDKIT=1 "$docker" "${builder[@]}" "$@" . >&2 || die "$name was not built: the reason stands above"

    local built
    built=$("$docker" image inspect --format '{{.Os}}/{{.Architecture}}' "$name")
    [ "$built" = "$platform" ] || die "$name is for $built, not $platform: its base image is"
    images+=("$name")
}

# MB that an image may add to its base; the table below shows where they went. serve-torch's CPU torch has none.
budget_of() { case $1 in byoc-train:*) echo 5000 ;; byoc-serve:*) echo 450 ;; esac; }

# Bytes of the layers above the base: the first of ours copies install_python.sh.
added_by_us() {
    "$docker" history --no-trunc --human=false --format '{{.Size}} {{.CreatedBy}}' "$1" |
        awk '{ sum += $1 } /COPY docker\/install_python.sh/ { exit } END { printf "%.0f", sum / 1e6 }'
}

# What is largest in an image, in MB: packages, and the rest of what we put into it.
breakdown() {
    "$docker" run --rm --platform "$platform" "$1" sh -c \
        'du -sm /opt/venv/lib/python3.*/site-packages/* /opt/program/*/* 2>/dev/null' |
        sed 's|\t.*/|\t|' | sort -rn | awk 'NR <= 8 { printf "%s%s %d", (NR > 1 ? ", " : ""), $2, $1; next }
            { rest += $1 } END { printf ", others %d", rest }'
}

images=()
case $target in
    all) build train; build serve ;;
    *) build "$target" ;;
esac

echo
printf '%-44s %10s %14s %10s\n' image size "above base" budget
over=""
for name in "${images[@]}"; do
    added=$(added_by_us "$name") budget=$(budget_of "$name")
    printf '%-44s %10s %14s %10s\n' "$name" \
        "$("$docker" image inspect --format '{{.Size}}' "$name" | awk '{printf "%.0f MB", $1 / 1e6}')" \
        "$added MB" "${budget:-none}${budget:+ MB}"
    echo "  MB: $(breakdown "$name")"
    [ -z "$budget" ] || [ "$added" -le "$budget" ] || over="$over $name ($added MB, $budget allowed)"
done
[ -z "$over" ] || die "larger than its budget:$over; see the lines above for what takes the room"
