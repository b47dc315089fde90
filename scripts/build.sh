#!/usr/bin/env bash
# Builds the images; see --help. Runs on bash 3.2 too, the one that macOS has.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/build.sh [train|serve|serve-torch|all] [options]

Builds byoc-train and byoc-serve (all, the default), or one image, with the tag VERSION-CONTENT: the project's version
and a hash of all files that go into the image (VERSION-CONTENT-arm64 for linux/arm64). The last lines on stdout are a
table of names and sizes.

Beside each image, in dist/: NAME_TAG.cdx.json (its components, CycloneDX), .licenses.txt, .advisories.txt and .json (what
osv.dev reports for its Python packages and their Java; if it cannot be reached, that they were not checked).

  --tag T            use this tag instead
  --base-train I     base image for training   (BYOC_BASE_TRAIN, default: CUDA 13.0 on Ubuntu 24.04)
  --base-serve I     base image for serving    (BYOC_BASE_SERVE, default: slim Python 3.11 on Debian bookworm)
                     any Debian or Ubuntu image, with Python 3.11 or 3.12 in it or among its packages
  --ca-bundle F      certificates to trust while packages are downloaded: the CA of a proxy that inspects TLS.
                     Given to the build as a secret, part of no layer          (BYOC_CA_BUNDLE)
  --maven-settings F Maven's settings.xml: a company's mirror, with a password maybe (plain, not ${env.NAME}). A secret too
                     (BYOC_MAVEN_SETTINGS, default: ~/.m2/settings.xml, if it is there; else Maven's own repository)
  --network N        network of the build's RUN steps, such as host            (BYOC_NETWORK)
  --torch-index URL  package index with a CPU build of torch, for serve-torch  (BYOC_TORCH_INDEX, default: PyTorch's)
  --platform P       linux/amd64 (default, on any machine), or linux/arm64: Graviton endpoints, Apple silicon.
                     For another platform than the machine's the engine needs an emulation (Docker Desktop has one)
  --no-sbom          leave these files out
  --fail-on-advisory end with 1 where an advisory is known, or could not be asked for; accepted ones are listed,
                     with the reason, in docker/accepted_advisories.txt
  --osv-url URL      another service that answers as osv.dev does              (BYOC_OSV_URL)
  --content          build nothing, print the content hash of one image (its label byoc.content)
  -h, --help, --version

PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST, UV_DEFAULT_INDEX, UV_INDEX and UV_INSECURE_HOST are given to the
build as a secret too, where they are set; HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Docker's predefined build arguments.

Examples:
  scripts/build.sh                                                     both images
  scripts/build.sh serve --tag dev                                     byoc-serve:dev
  scripts/build.sh --ca-bundle /etc/ssl/certs/ca-certificates.crt --network host        behind a company's proxy
  scripts/build.sh train --base-train ubuntu:24.04                     no CUDA base, for a machine without GPU
  scripts/build.sh serve --platform linux/arm64                        for ml.c7g, ml.m8g and other Graviton instances
  scripts/build.sh --content train                                     a1b2c3d4e5f6
TEXT
}

die() { echo "build.sh: $*" >&2; exit 1; }
wrong() { echo "build.sh: $*; see scripts/build.sh --help" >&2; exit 2; }

started_in=$PWD
cd "$(dirname "$0")/.."

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' container_serve/__init__.py)

target="" tag="" content_only="" platform=linux/amd64 sbom=1 fail_on_advisory=""
base_train=${BYOC_BASE_TRAIN:-} base_serve=${BYOC_BASE_SERVE:-}
ca_bundle=${BYOC_CA_BUNDLE:-} maven_settings=${BYOC_MAVEN_SETTINGS:-} network=${BYOC_NETWORK:-} torch_index=${BYOC_TORCH_INDEX:-}
osv_url=${BYOC_OSV_URL:-}

while [ $# -gt 0 ]; do
    case $1 in
        --tag | --base-train | --base-serve | --ca-bundle | --maven-settings | --network | --torch-index | --platform | --osv-url)
            case ${2:-} in "" | --*) wrong "$1 needs a value" ;; esac
            name=$(echo "${1#--}" | tr - _)
            printf -v "$name" %s "$2"
            shift 2 ;;
        --content) content_only=1; shift ;;
        --no-sbom) sbom=""; shift ;;
        --fail-on-advisory) fail_on_advisory=1; shift ;;
        -h | --help) usage; exit 0 ;;
        --version) echo "build.sh $version"; exit 0 ;;
        train | serve | serve-torch | all)
            [ -z "$target" ] || wrong "one image or 'all', not both '$target' and '$1'"
            target=$1; shift ;;
        *) wrong "unknown argument '$1'" ;;
    esac
done
target=${target:-all}
case $osv_url in "" | http://?* | https://?*) ;; *) wrong "--osv-url has value '$osv_url': expected http:// or https://" ;; esac
case $osv_url in *://*@*) wrong "--osv-url holds a name or password, which the build would show: leave it out" ;; esac
case $platform in linux/amd64 | linux/arm64) ;; *) wrong "--platform has value '$platform': expected linux/amd64 or linux/arm64" ;; esac
[ -z "$fail_on_advisory" ] || [ -n "$sbom" ] || wrong "--fail-on-advisory and --no-sbom do not go together"

[ -n "$version" ] || die "container_serve/__init__.py has no line '__version__ = \"...\"'"

# The files that go into an image, besides the base. Kept in step with the COPY lines of the Dockerfiles by a test.
files_of() {
    local common="docker/install_python.sh docker/install_builder.sh docker/make_venv.sh docker/uv.lock LICENSE container_serve"
    case $1 in
        train) echo "$common docker/train.Dockerfile docker/train.lock docker/trim_train.sh docker/train container_train" ;;
        serve) echo "$common docker/serve.Dockerfile docker/serve.lock docker/serve docker/versions" ;;
        serve-torch) echo "$(files_of serve) docker/serve-torch.lock" ;;
    esac
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

content_of() {
    local file
    # shellcheck disable=SC2046 # a list of paths without blanks
    # As .dockerignore says: what is built beside the sources goes into no image.
    find $(files_of "$1") -type f ! -name '*.pyc' ! -name '*.jsa' ! -path '*/target/*' ! -path '*/frontend/lib/*' |
        LC_ALL=C sort | while read -r file; do sha256 "$file"; done | sha256 | cut -c1-12
}

if [ -n "$content_only" ]; then
    [ "$target" != all ] || wrong "--content needs one image: train, serve or serve-torch"
    content_of "$target"
    exit
fi

case $tag in *[!A-Za-z0-9_.-]* | [.-]*) wrong "'$tag' is no image tag: letters, digits and _ . -" ;; esac
if [ -n "$ca_bundle" ]; then
    case $ca_bundle in /*) ;; *) ca_bundle=$started_in/$ca_bundle ;; esac
    [ -r "$ca_bundle" ] || die "the CA bundle '$ca_bundle' cannot be read"
    grep -q 'BEGIN CERTIFICATE' "$ca_bundle" || die "the CA bundle '$ca_bundle' holds no PEM certificate"
fi

if [ -n "$maven_settings" ]; then
    case $maven_settings in /*) ;; *) maven_settings=$started_in/$maven_settings ;; esac
    [ -r "$maven_settings" ] || die "the Maven settings '$maven_settings' cannot be read"
elif [ -r "${HOME:-}/.m2/settings.xml" ]; then
    maven_settings=$HOME/.m2/settings.xml
fi

# A client that can do BuildKit: one with the buildx plugin, or one older than 23, which speaks it by itself. A newer
# client without the plugin falls back to the legacy builder, which has no secrets.
find_client() {
    local release
    command -v docker >/dev/null || die "no docker client on PATH: install Docker, or use './local_test/run.sh --engine process'"
    while read -r docker; do
        if "$docker" buildx version >/dev/null 2>&1; then
            builder=(buildx build --provenance=false --sbom=false)
            as_image=(--output "type=docker,oci-mediatypes=false")
            # The builder that sees the engine's images; one of the caller's own may not.
            beside=(--builder "$("$docker" context show 2>/dev/null || echo default)")
            return
        fi
        release=$("$docker" --version | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
        if [ "${release:-99}" -lt 23 ]; then
            builder=(build) as_image=() beside=()
            return
        fi
    done < <(type -ap docker)
    die "no docker client here can use BuildKit: install its buildx plugin (docker-buildx-plugin)"
}
docker="" builder=() as_image=() beside=()
find_client
"$docker" version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
    die "no Docker daemon answers: start it, or use './local_test/run.sh --engine process' ($("$docker" version 2>&1 >/dev/null | tail -n 1))"

# The package index goes in as a secret: such URLs often hold a password.
secrets=$(mktemp) partial=""
trap 'rm -rf "$secrets" ${partial:+"$partial"}' EXIT
export_line() { printf "export %s='%s'\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\''/g")" >> "$secrets"; }
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX UV_INSECURE_HOST; do
    [ -z "${!name:-}" ] || export_line "$name" "${!name}"
done
# pip installs uv, uv the rest: a user who has set one of them means both.
[ -n "${UV_DEFAULT_INDEX:-}" ] || [ -z "${PIP_INDEX_URL:-}" ] || export_line UV_DEFAULT_INDEX "$PIP_INDEX_URL"
[ -n "${PIP_INDEX_URL:-}" ] || [ -z "${UV_DEFAULT_INDEX:-}" ] || export_line PIP_INDEX_URL "$UV_DEFAULT_INDEX"

run_builder() {
    [ -z "$network" ] || set -- "$@" --network "$network"
    [ -z "$ca_bundle" ] || set -- "$@" --secret id=ca,src="$ca_bundle"
    [ -z "$maven_settings" ] || set -- "$@" --secret id=maven,src="$maven_settings"
    [ ! -s "$secrets" ] || set -- "$@" --secret id=packages,src="$secrets"
    DOCKER_BUILDKIT=1 "$docker" "${builder[@]}" "$@" . >&2
}

if [ -n "$sbom" ]; then
    mkdir -p dist 2>/dev/null || die "dist/ cannot be made: it gets what is in the images (--no-sbom leaves it out)"
fi

# The address of a Git remote as https://HOST/PATH, without a name or password; nothing for a folder of this machine.
public_address() {
    sed -n -E -e 's#^(https?|ssh|git)://([^@/]*@)?([^/:]+)(:[0-9]+)?/(.+)$#https://\3/\5#p;t' \
        -e 's#^([^@/]*@)?([^/:]+):([^/].*)$#https://\2/\3#p' | sed -E 's#\.git/?$##'
}

build() {
    local image=$1 file=docker/serve.Dockerfile base=$base_serve content revision source name
    [ "$image" != train ] || file=docker/train.Dockerfile base=$base_train
    content=$(content_of "$image")
    revision=$(git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)
    source=$(git config --get remote.origin.url 2>/dev/null | public_address || true)
    # shellcheck disable=SC2046 # a list of paths without blanks
    [ "$revision" = unknown ] || [ -z "$(git status --porcelain -- $(files_of "$image"))" ] || revision=$revision-changed
    name=byoc-$image:${tag:-$version-$content$([ "$platform" = linux/amd64 ] || echo "-${platform#*/}")}

    set -- ${as_image[@]+"${as_image[@]}"} --file "$file" --platform "$platform" --tag "$name" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" --build-arg CONTENT="$content" \
        --build-arg SOURCE="${source:-unknown}"
    [ "$image" = train ] || set -- "$@" --target "$image"
    [ -z "$base" ] || set -- "$@" --build-arg BASE="$base"
    [ "$image" != serve-torch ] || [ -z "$torch_index" ] || set -- "$@" --build-arg TORCH_INDEX="$torch_index"
    # What is known of an older image of this name is not known of this one.
    rm -f "$(listing_of "$name")".{cdx.json,licenses.txt,advisories.txt,advisories.json}
    echo "build.sh: building $name" >&2
    run_builder "$@" || die "$name was not built: the reason stands above"

    local built
    built=$("$docker" image inspect --format '{{.Os}}/{{.Architecture}}' "$name")
    [ "$built" = "$platform" ] || die "$name is for $built, not $platform: its base image is"
    images+=("$name")
    [ -z "$sbom" ] || inventory "$name"
}

# The path in dist/ of an image's content, without the files' ends.
listing_of() { echo "dist/${1/:/_}"; }

# The content of the image, as files in dist/, which appear whole or not at all.
inventory() {
    local identifier
    partial=$(mktemp -d dist/.partial-XXXXXX) || die "dist/ cannot be written to: what is in $1 was not listed"
    identifier=$("$docker" image inspect --format '{{.Id}}' "$1")
    echo "build.sh: listing what is in $1" >&2
    run_builder ${beside[@]+"${beside[@]}"} --file docker/sbom.Dockerfile --platform "$platform" \
        --output "type=local,dest=$partial" --build-arg IMAGE="$1" --build-arg IMAGE_ID="$identifier" \
        --build-arg NAME="$(basename "$(listing_of "$1")")" --build-arg OSV_URL="$osv_url" \
        --build-arg ASKED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" ||
        die "$1 is built, but what is in it was not listed: the reason stands above (--no-sbom leaves it out)"
    touch "$partial"/* # they have the times of a cached layer
    mv "$partial"/* dist/
    rmdir "$partial"
}

# The files of dist/ for an image.
tell() {
    local file
    file=$(listing_of "$1")
    echo "  $file.cdx.json: $(wc -l < "$file.licenses.txt" | tr -d ' ') components," \
        "$(grep -c 'not stated$' "$file.licenses.txt" || true) of them without a stated licence"
    sed 's/^/  advisories: /' "$file.advisories.txt"
    grep -q '"verdict": "none"' "$file.advisories.json" || concerns="$concerns $1"
}

images=()
case $target in
    all) build train; build serve ;;
    *) build "$target" ;;
esac

concerns=""
for name in "${images[@]}"; do
    "$docker" image inspect --format '{{.Size}}' "$name" | awk -v name="$name" '{ printf "%-44s %10.0f MB\n", name, $1 / 1e6 }'
    [ -z "$sbom" ] || tell "$name"
done
[ -z "$fail_on_advisory" ] || [ -z "$concerns" ] || die "advisories that are not accepted, or could not be asked for:$concerns"
