#!/usr/bin/env bash
# Predicts a whole folder of images, and lists those that a person should look at: the model is least sure of them.
#
#   examples/batch_transform.sh --local model.tar.gz DIR        in Docker on this machine, free
#   examples/batch_transform.sh SERVE_URI JOB DIR               on AWS: 0.12 USD per hour, as long as the job runs
#   examples/batch_transform.sh SERVE_URI JOB DIR --dry-run     prints every request; needs no account
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image=$1 model=$2 images=$3 dry_run=${4:-}

if [ "$image" = --local ]; then
  out=${OUT:-local_test/out.batch}
  scripts/transform.py --local --model-data "$model" --data "$images" --out "$out"
  table=$out/predictions.csv
else
  scripts/transform.py --image "$image" --job "$model" --data "$images" ${dry_run:+--dry-run}
  exit # the last lines name predictions.csv in S3, which has the same columns
fi

# Columns: file, label, probability, error.
.venv/bin/python - "$table" <<'EOF'
import csv, sys

header, *rows = csv.reader(open(sys.argv[1], newline=""))
rows.sort(key=lambda row: float(row[2] or 0))  # an image that was not predicted has no probability
csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows[:10]])
EOF
