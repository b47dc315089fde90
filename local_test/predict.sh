#!/usr/bin/env bash
# Posts one image to a server and prints its answer. Needs curl only.
set -euo pipefail
usage="Usage: local_test/predict.sh IMAGE [--url http://127.0.0.1:8080] [--top-k 5]"
wrong() {
  echo "predict.sh: $*; $usage" >&2
  exit 2
}

image="" url=http://127.0.0.1:8080 top_k=5
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) echo "$usage"; exit 0 ;;
    --version) exec sed -n 's/^__version__ = "\(.*\)"$/predict.sh \1/p' "$(dirname "$0")/../container_serve/__init__.py" ;;
    --url | --top-k)
      [ -n "${2:-}" ] || wrong "$1 needs a value"
      if [ "$1" = --url ]; then url=$2; else top_k=$2; fi
      shift 2 ;;
    -*) wrong "unknown flag $1" ;;
    *)
      [ -z "$image" ] || wrong "one image, not both $image and $1"
      image=$1
      shift ;;
  esac
done
[ -n "$image" ] || wrong "no image given"
if [ ! -f "$image" ] || [ ! -r "$image" ]; then wrong "$image is not a file that can be read"; fi
case $top_k in '' | *[!0-9]* | 0) wrong "--top-k $top_k: must be an integer above 0" ;; esac
command -v curl >/dev/null || wrong "curl is not on PATH: install it"

url=${url%/}
url=${url%/invocations}

answer=$(curl --silent --show-error --max-time 60 --noproxy localhost,127.0.0.1,::1 \
  --header 'Content-Type: application/x-image' --header 'Accept: application/json' \
  --header "X-Amzn-SageMaker-Custom-Attributes: top_k=$top_k" --data-binary "@$image" \
  --write-out '\n%{http_code}' "$url/invocations") || {
  echo "predict.sh: no answer from $url: start the server with local_test/serve_local.sh, or give --url" >&2
  exit 1
}
status=${answer##*$'\n'}
printf '%s\n' "${answer%$'\n'*}"
[ "$status" = 200 ] || {
  echo "predict.sh: $url answered $status" >&2
  exit 1
}
