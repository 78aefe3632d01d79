#!/usr/bin/env bash
# Trains one stage by torchrun, without Snakemake: one torchrun on each node, one process for each GPU. From the root:
#
#     sbatch --partition=gpu --nodes=2 --gres=gpu:8 --cpus-per-task=96 --mem=400000 --time=24:00:00 \
#         slurm/torchrun.sh results/train/NAME-DIGEST
#
# It goes on from the stage's newest save or slice, wherever that came from, to the end of the stage.
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=torchrun-%j.log
set -euo pipefail
export STAGE=$1 GPUS=${SLURM_GPUS_ON_NODE:-1} PORT=$((20000 + SLURM_JOB_ID % 12000))
slices=$(find "$STAGE" -maxdepth 1 -name "slice-*.ckpt" | sort -V)
export BEFORE=${slices##*$'\n'} THREADS=$((${SLURM_CPUS_PER_TASK:-$GPUS} / GPUS))
# torchrun hands a warning on to its processes; by itself it would kill them after 30 s, saved or not.
exec srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c 'exec python -m torch.distributed.run \
    --nnodes="$SLURM_NNODES" --node-rank="$SLURM_NODEID" --nproc-per-node="$GPUS" --shutdown-timeout=280 \
    --master-addr="$SLURM_LAUNCH_NODE_IPADDR" --master-port="$PORT" \
    -m mdm --threads "$THREADS" train "$STAGE/recipe.json" --out "$STAGE/final.ckpt" --before $BEFORE'
