#!/usr/bin/env bash
#
# Runs a lift job on all workers of a Cloud TPU slice, through gcloud.
#
# usage: scripts/tpu_pod.sh --tpu=NAME --zone=ZONE [--project=PROJECT]
#                           [--create=TYPE [--spot]] [--dry_run]
#                           -- JOB [flags of the job]
#        scripts/tpu_pod.sh --tpu=NAME --zone=ZONE [--project=PROJECT] --stop
#
#   --create=TYPE  creates the TPU if it is missing or was preempted; TYPE is
#                  such as v5p-128
#   --spot         creates a spot TPU, which costs less and may be preempted
#   --stop         stops the job after a checkpoint, and starts none
#   --dry_run      prints the commands and runs none, as if the TPU were missing
#
# Copies the files that git tracks, with uncommitted changes, installs
# lift_jax[tpu,gcs], and starts `lift JOB ... --multihost` on every worker. Their
# output is shown here and saved in ~/lift.log there. The job keeps running if
# this script is interrupted or the connection is lost.
#
# After a preemption, or to continue with changed code, run the same command
# again: a running job is stopped after a checkpoint, and jobs resume
# automatically. --workdir and the data must be in a bucket (gs://) or in folders
# that all workers share, such as a mounted Filestore.
#
# example: scripts/tpu_pod.sh --tpu=pod --zone=us-east5-a --create=v5p-128 \
#            -- align --config=configs/align_cogvideox_2b.py \
#            --workdir=/mnt/shared/runs/first
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tpu='' zone='' project='' type='' spot='' stop=''
while [ $# -gt 0 ]; do
  case $1 in
    --tpu=*) tpu=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --create=*) type=${1#*=} ;;
    --spot) spot=yes ;;
    --stop) stop=yes ;;
    --) shift && break ;;
    *) shared_flag "$1" ;;
  esac
  shift
done
[ -n "$tpu" ] || fail '--tpu=NAME is missing'
[ -n "$zone" ] || fail '--zone=ZONE is missing'
[ -z "$spot" ] || [ -n "$type" ] || fail '--spot needs --create=TYPE'
[ -n "$stop" ] || check_job "$@"
where=(--zone="$zone")
[ -z "$project" ] || where+=(--project="$project")

tpu_vm() {
  run gcloud compute tpus tpu-vm "$@" "${where[@]}"
}

on_workers() {
  tpu_vm ssh "$tpu" --worker=all --command="$1"
}

# https://cloud.google.com/tpu/docs/runtimes
software() {
  case $type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) fail "--create=$type: known are v2, v3, v4, v5litepod, v5p and v6e" ;;
  esac
}

make_tpu() {
  local version state=''
  version=$(software)
  if [ -z "$dry_run" ]; then
    state=$(tpu_vm describe "$tpu" --format='value(state)' 2> /dev/null) || :
  fi
  [ "$state" != READY ] || return 0
  case $state in
    PREEMPTED | TERMINATED) tpu_vm delete "$tpu" --quiet ;;
  esac
  tpu_vm create "$tpu" --accelerator-type="$type" --version="$version" \
    ${spot:+--spot}
}

# Matches the process of lift.pid only if it is the job: the pid may have been
# reused.
job='-f -F lift.pid lift_venv/bin/lift'
end_job="if [ -f lift.pid ]; then pkill -TERM $job; \
while pgrep $job > /dev/null; do sleep 1; done; fi"

if [ -n "$stop" ]; then
  on_workers "$end_job"
  exit
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -z "$type" ] || make_tpu
archive=build/launch/$tpu.tar.gz
pack_repository "$archive"
tpu_vm scp "$archive" "$tpu:lift_jax.tar.gz" --worker=all
on_workers "$end_job"
# The workers' own Python is too old for lift_jax; uv installs another.
on_workers "rm -rf lift_jax && mkdir lift_jax && \
tar -xzf lift_jax.tar.gz -C lift_jax && cd lift_jax && \
python3 -m pip install --quiet --user uv && \
python3 -m uv venv --quiet --allow-existing --python=3.11 ~/lift_venv && \
python3 -m uv pip install --quiet --python ~/lift_venv/bin/python \
-c constraints.txt -e '.[tpu,gcs]'"
# With its output in a file the job does not depend on the connection. The file
# is created before tail opens it; tail ends with the job, wait has its status.
on_workers "cd lift_jax; : > ~/lift.log; \
nohup ~/lift_venv/bin/lift $(shell_words "$@") --multihost \
>> ~/lift.log 2>&1 < /dev/null & \
echo \$! > ~/lift.pid; tail -n +1 -f --pid=\$! ~/lift.log; wait \$!"
