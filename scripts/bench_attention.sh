#!/usr/bin/env bash
# Each mechanism against its plain equations, in turns; options go on to the benchmark (--help).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH=. exec python tests/model/attention/bench.py "$@"
