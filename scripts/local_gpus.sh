#!/usr/bin/env bash
#
# Runs a lift job on the GPUs of this machine.
#
# usage: scripts/local_gpus.sh [--gpus=LIST] [--dry_run]
#                              -- JOB [flags of the job]
#
#   --gpus=LIST  such as 0,1; all of them by default
#   --dry_run    prints the command and runs none
#
# One process sees all GPUs and makes its mesh of them, so the job needs no
# launcher: `lift JOB ...` does. What this adds is
#   - an error where there is no GPU, or JAX was installed without CUDA; the job
#     would run on the CPU instead
#   - 90% of the GPUs' memory in place of JAX's 75%
#   - collectives that overlap with computation
#
# example: scripts/local_gpus.sh -- align \
#            --config=configs/align_cogvideox_2b.py --workdir=runs/first
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

gpus=''
while [ $# -gt 0 ]; do
  case $1 in
    --gpus=*) gpus=${1#*=} ;;
    --) shift && break ;;
    *) shared_flag "$1" ;;
  esac
  shift
done
check_job "$@"

# Alone in the list: with cuda,cpu JAX takes the CPU where it sees no GPU.
settings=(JAX_PLATFORMS=cuda)
# Some is left for NCCL and cuDNN, which allocate their own; NVIDIA uses 0.8 to
# 0.9: https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance
settings+=("XLA_CLIENT_MEM_FRACTION=${XLA_CLIENT_MEM_FRACTION:-0.9}")
# Overlaps collectives with computation, and is off by default:
# https://docs.jax.dev/en/latest/gpu_performance_tips.html
overlap=--xla_gpu_enable_latency_hiding_scheduler=true
settings+=("XLA_FLAGS=$overlap${XLA_FLAGS:+ $XLA_FLAGS}")
[ -z "$gpus" ] || settings+=("CUDA_VISIBLE_DEVICES=$gpus")

command=(env "${settings[@]}" lift "$@")
if [ -n "$dry_run" ]; then
  shell_words "${command[@]}"
else
  # Signals that are meant for the job reach it, and not a shell before it.
  exec "${command[@]}"
fi
