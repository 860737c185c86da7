#!/usr/bin/env bash
# From nothing to a report on synthetic scans; fails where training does not beat copying.
set -euo pipefail
cd "$(dirname "$0")/.."

demo="${CATNET_DEMO:-$HOME/catnet/demo}"
export CATNET_DATA="$demo/data" CATNET_RUNS="$demo/runs" CATNET_CARDS="$PWD/datasets"

catnet phantom phantom_mr --raw "$demo/raw" --cases 10
catnet prepare phantom_mr --raw "$demo/raw"
catnet supervoxels phantom_mr --purity
catnet sweep experiments/demo.yml --jobs 2
sweep=$(ls -td "$CATNET_RUNS"/sweeps/demo-* | head -n 1)
catnet report "$sweep" -o "$demo/report"
run=$(dirname "$(grep -l 'rounds: 2' "$CATNET_RUNS"/demo-*/run.yml | head -n 1)")
catnet evaluate "$run" --beat-copy 10

echo
echo "report:      $demo/report/index.html (open it in a browser)"
echo "run:         $run"
echo "log:         $run/log.jsonl (curves: tensorboard --logdir $run/tensorboard)"
