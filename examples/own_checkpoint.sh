#!/usr/bin/env bash
# Serves a model that was trained elsewhere, on this machine, and asks it. Needs no account and no Docker.
#
#   examples/own_checkpoint.sh model.pth classes.txt dog.jpg [resnet50]
#
# model.pth is a state_dict of a torchvision or timm network (the last word names it), as torch.save wrote it. classes.txt
# has one label per line, in the order of the network's outputs. The result is $OUT.tar.gz, which SageMaker takes, too:
#
#   aws s3 cp local_test/out.checkpoint.tar.gz s3://BUCKET/byoc/checkpoint/model.tar.gz
#   scripts/deploy.py --image SERVE_URI --model-data s3://BUCKET/byoc/checkpoint/model.tar.gz
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
weights=$1 classes=$2 photo=$3 architecture=${4:-resnet50}
out=${OUT:-local_test/out.checkpoint} port=${PORT:-8090}

ping() { curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "http://127.0.0.1:$port/ping"; }
if ping; then # it would answer in the place of ours
  echo "own_checkpoint.sh: another server answers at port $port: give another one (PORT=8091)" >&2
  exit 1
fi

# The graph that is served, from the weights. With --calibration DIR it is int8 where that costs no accuracy.
.venv/bin/python -m container_train.export --weights "$weights" --classes "$classes" --arch "$architecture" --out "$out"
tar -czf "$out.tar.gz" -C "$out" .

local_test/serve_local.sh --engine process --model "$out" --port "$port" >"$out.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true' EXIT
until ping; do
  kill -0 "$server" 2>/dev/null || { echo "own_checkpoint.sh: the server has ended: $out.log says why" >&2; exit 1; }
  sleep 1
done

local_test/predict.sh "$photo" --url "http://127.0.0.1:$port" --top-k 3
