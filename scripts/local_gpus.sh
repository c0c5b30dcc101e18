#!/usr/bin/env bash
#
# Runs a lift job on the GPUs of this machine.
#
# usage: scripts/local_gpus.sh [--gpus=LIST] [--dry_run]
#                              -- JOB [flags of the job]
#
#   --gpus=LIST  such as 0,1; default: all
#   --dry_run    prints the command and runs none
#
# One process uses all GPUs, so `lift JOB ...` needs no launcher. This adds
#   - an error if there is no GPU, or JAX is installed without CUDA; otherwise
#     the job would run on the CPU
#   - 90% of the GPUs' memory instead of JAX's 75%
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

# Only cuda: with cuda,cpu JAX falls back to the CPU.
settings=(JAX_PLATFORMS=cuda)
# NCCL and cuDNN allocate memory of their own; NVIDIA uses 0.8 to 0.9:
# https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance
settings+=("XLA_CLIENT_MEM_FRACTION=${XLA_CLIENT_MEM_FRACTION:-0.9}")
# Overlaps collectives with computation; off by default:
# https://docs.jax.dev/en/latest/gpu_performance_tips.html
overlap=--xla_gpu_enable_latency_hiding_scheduler=true
settings+=("XLA_FLAGS=$overlap${XLA_FLAGS:+ $XLA_FLAGS}")
[ -z "$gpus" ] || settings+=("CUDA_VISIBLE_DEVICES=$gpus")

command=(env "${settings[@]}" lift "$@")
if [ -n "$dry_run" ]; then
  shell_words "${command[@]}"
else
  # With exec, signals reach the job and not the shell.
  exec "${command[@]}"
fi
