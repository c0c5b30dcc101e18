#!/usr/bin/env bash
#
# The batch script that slurm.sh submits: runs the given command, an srun, and
# requeues the job at its time limit.
#
# usage: sbatch --signal=B:USR1@300 ... scripts/slurm_job.sh srun ...
#
# With `--signal=B:` SLURM sends USR1 only to this script. A lift job that gets
# SIGTERM saves a checkpoint and ends. Only this script requeues it: other
# SIGTERMs do not, as scancel sends SIGTERM, too.
set -euo pipefail

out_of_time=''
# Step 0 is the srun below; its processes on all nodes get the signal.
trap 'out_of_time=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1

"$@" &
step=$!
while true; do
  status=0
  wait "$step" || status=$?
  # A signal interrupts wait, too.
  kill -0 "$step" 2> /dev/null || break
done

# A job that was just complete has nothing to do when it restarts, and ends.
[ -z "$out_of_time" ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
