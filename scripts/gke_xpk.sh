#!/usr/bin/env bash
#
# Runs a lift job on one TPU slice of a GKE cluster, through xpk.
#
# usage: scripts/gke_xpk.sh --workload=NAME --cluster=CLUSTER --tpu_type=TYPE
#                           [--zone=ZONE] [--project=PROJECT]
#                           [--storage=STORAGE] [--dry_run]
#                           -- JOB [flags of the job]
#
#   --workload=NAME    name of the job in xpk; must be unique
#   --tpu_type=TYPE    such as v5p-128
#   --storage=STORAGE  mounts a storage of `xpk storage attach` or `create`
#   --dry_run          prints the commands and runs none
#
# xpk adds the files that git tracks, with uncommitted changes, to the image
# python:3.11; docker must run here. Each pod installs lift_jax[tpu,gcs] and starts
# `lift JOB ... --multihost`.
#
# If a node fails, xpk restarts all pods and the job resumes automatically. To
# start it again, run `xpk workload delete`, then the same command. --workdir
# and the data must be in a bucket (gs://) or on the storage, which all pods
# share.
#
# example: scripts/gke_xpk.sh --workload=first --cluster=tpus \
#            --tpu_type=v5p-128 --storage=shared \
#            -- align --config=configs/align_cogvideox_2b.py \
#            --workdir=/shared/runs/first
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workload='' cluster='' tpu_type='' zone='' project='' storage=''
while [ $# -gt 0 ]; do
  case $1 in
    --workload=*) workload=${1#*=} ;;
    --cluster=*) cluster=${1#*=} ;;
    --tpu_type=*) tpu_type=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --storage=*) storage=${1#*=} ;;
    --) shift && break ;;
    *) shared_flag "$1" ;;
  esac
  shift
done
[ -n "$workload" ] || fail '--workload=NAME is missing'
[ -n "$cluster" ] || fail '--cluster=CLUSTER is missing'
[ -n "$tpu_type" ] || fail '--tpu_type=TYPE is missing'
check_job "$@"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=build/launch/$workload
pack_repository "$folder.tar.gz"
run rm -rf "$folder"
run mkdir "$folder"
run tar -xzf "$folder.tar.gz" -C "$folder"

# With exec, SIGTERM reaches lift and not the shell.
command="pip install --quiet -c constraints.txt -e '.[tpu,gcs]' && \
exec lift $(shell_words "$@") --multihost"

# xpk recommends 50 restarts for jobs that resume. It restarts after lost nodes
# and signals; an error of the job itself ends the workload. 300 s are for a
# step and a checkpoint.
run xpk workload create --workload="$workload" --cluster="$cluster" \
  --tpu-type="$tpu_type" ${zone:+--zone="$zone"} \
  ${project:+--project="$project"} ${storage:+--storage="$storage"} \
  --base-docker-image=python:3.11 --script-dir="$folder" \
  --max-restarts=50 --termination-grace-period-seconds=300 \
  --command="$command"
