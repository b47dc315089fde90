#!/usr/bin/env bash
# From a zip of dog photographs to an endpoint that names the breed, and back to an account without an endpoint.
#
#   examples/dogs.sh TRAIN_URI SERVE_URI dogImages.zip dog.jpg              0.74 USD per hour while it trains, then 0.12
#   examples/dogs.sh TRAIN_URI SERVE_URI dogImages.zip dog.jpg --dry-run    prints every request; needs no account
#
# scripts/push.sh prints the two URIs. Any zip of class folders works. The images and the model stay in S3, for cents per
# GB and month: scripts/cleanup.py --data removes them.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
train_uri=$1 serve_uri=$2 zip=$3 photo=$4 dry_run=${5:-}
folder=data/$(basename "$zip" .zip)
name=byoc-dogs-$(date +%Y%m%d-%H%M%S)

scripts/prepare_data.py "$zip" --out "$folder" # unpacks, checks, splits; a second call has nothing to do
scripts/train.py --image "$train_uri" --data "$folder" --name "$name" --spot ${dry_run:+--dry-run}

# The endpoint goes in any case, also if a step below fails.
trap 'scripts/cleanup.py "$name" --yes ${dry_run:+--dry-run}' EXIT
scripts/deploy.py --image "$serve_uri" --job "$name" --name "$name" ${dry_run:+--dry-run}
if [ -z "$dry_run" ]; then
  scripts/predict.py "$name" "$photo" --top-k 3
fi
