#!/usr/bin/env bash
#
# Submits a lift job to SLURM, on exclusive nodes with GPUs.
#
# usage: scripts/slurm.sh --nodes=N --gpus_per_node=N [--time=LIMIT]
#                         [--partition=NAME] [--account=NAME]
#                         [--process_per_gpu] [--dry_run]
#                         -- JOB [flags of the job]
#
#   --time=LIMIT       as sbatch takes it, such as 24:00:00
#   --process_per_gpu  starts one process per GPU instead of one per node
#   --dry_run          prints the command and runs none
#
# Set other options of sbatch through its variables, such as SBATCH_QOS. Call it
# with lift on the PATH (`pip install -e '.[cuda]'` in an active environment):
# SLURM passes the environment on. This folder, the environment, --workdir and
# the data must be accessible from all nodes.
#
# Five minutes before the time limit the job saves a checkpoint and ends. It is
# requeued and resumes automatically, as after the failure of a node. `scancel`
# ends it permanently; the same command resumes it.
#
# A process is a host for lift. The default is one per node, as `lift sample`
# and `lift score` make a mesh of each host's GPUs; according to the authors of
# JAX one per GPU can be faster.
#
# example: scripts/slurm.sh --nodes=4 --gpus_per_node=8 --time=24:00:00 \
#            -- align --config=configs/align_cogvideox_2b.py \
#            --workdir=runs/first
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes='' gpus='' time='' partition='' account='' process_per_gpu=''
while [ $# -gt 0 ]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus_per_node=*) gpus=${1#*=} ;;
    --time=*) time=${1#*=} ;;
    --partition=*) partition=${1#*=} ;;
    --account=*) account=${1#*=} ;;
    --process_per_gpu) process_per_gpu=yes ;;
    --) shift && break ;;
    *) shared_flag "$1" ;;
  esac
  shift
done
[[ $nodes =~ ^[1-9][0-9]*$ ]] || fail '--nodes=N is missing or wrong'
[[ $gpus =~ ^[1-9][0-9]*$ ]] || fail '--gpus_per_node=N is missing or wrong'
check_job "$@"

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
job=("$scripts/local_gpus.sh" -- "$@" --multihost)
if [ -n "$process_per_gpu" ]; then
  processes=$gpus
else
  processes=1
  # Under SLURM JAX uses one GPU per process by default.
  job=(env "JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))" "${job[@]}")
fi

# Otherwise the other processes wait for one that has failed. NCCL and video
# decoding need many cores, but a process may be bound to one by default.
step=(srun --kill-on-bad-exit=1 --cpu-bind=none "${job[@]}")

# USR1 is sent 300 s before the time limit, for a step and a checkpoint.
run sbatch --job-name="lift-$1" --nodes="$nodes" \
  --ntasks-per-node="$processes" --gpus-per-node="$gpus" --exclusive --mem=0 \
  ${time:+--time="$time"} ${partition:+--partition="$partition"} \
  ${account:+--account="$account"} \
  --signal=B:USR1@300 --requeue --open-mode=append \
  "$scripts/slurm_job.sh" "${step[@]}"
