#!/usr/bin/env bash
# The runs of a question on a SLURM cluster, one array task a run; then the rows of all of them.
#
#   scripts/slurm.sh experiments/rounds.yml data.fold=0
#
# CATNET_DATA and CATNET_RUNS must lie where all nodes see them. What a run needs (partition, GPU,
# time) is given in SBATCH_ARGS, such as SBATCH_ARGS="--gres=gpu:1 --time=2:00:00".
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 QUESTION.yml [key=value ...]" >&2; exit 2; }
count=$(catnet sweep "$@" --list | wc -l)
question=$(printf '%q ' "$@")
runs=$(sbatch --parsable --array="1-$count" ${SBATCH_ARGS:-} <<EOF
#!/usr/bin/env bash
srun catnet sweep $question --only "\$SLURM_ARRAY_TASK_ID"
EOF
)
echo "runs: job $runs"
# What is finished is not done again: the sweep gathers the rows, and does what was left.
sbatch --dependency="afterany:$runs" ${SBATCH_ARGS:-} <<EOF
#!/usr/bin/env bash
catnet sweep $question
EOF
