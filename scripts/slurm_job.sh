#!/usr/bin/env bash
#
# What slurm.sh submits: runs the command that it is given, an srun, and puts
# the job back into the queue when its time is over.
#
# usage: sbatch --signal=B:USR1@300 ... scripts/slurm_job.sh srun ...
#
# `--signal=B:` has SLURM send USR1 to this script alone. A lift job that gets
# SIGTERM saves and ends. Whether it is to go on is known only here: SIGTERM of
# others is left alone, as scancel sends it too.
set -euo pipefail

out_of_time=''
# Step 0 is the srun below: its processes get the signal, on all nodes.
trap 'out_of_time=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1

"$@" &
step=$!
while true; do
  status=0
  wait "$step" || status=$?
  # A signal ends wait, too.
  kill -0 "$step" 2> /dev/null || break
done

# A job that was done just then finds nothing to do, and ends.
[ -z "$out_of_time" ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
