#!/usr/bin/env bash
# The stability experiments that need a GPU, in calls of at most 8 minutes: benchmarks/stability.sh [--dry] [EXPERIMENT ...]
#
# An EXPERIMENT is one of benchmarks/stability.py; by default those for GPUs, in order of importance. The same command goes
# on where the last one stopped or was cut off, from the last measure of the runs in progress; it says "all done" at the
# end. Lines go to ${RESULTS:-benchmarks/stability.jsonl}, the states of runs in progress beside it: keep both.
#
# ${DATA:-data} holds cifar10/{train,test}/CLASS/*.jpg and celeba10k/*.jpg. ${PYTHON:-python3} needs JAX for this GPU.
# MINUTES is the time for a call. --dry does the same on the CPU with tiny networks and a few steps.
set -euo pipefail
cd "$(dirname "$0")/.."

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
options=(--minutes="${MINUTES:-8}" --data="${DATA:-data}" --results="${RESULTS:-benchmarks/stability.jsonl}")
if [ "${1:-}" = --dry ]; then
  shift
  options+=(--dry)
  export JAX_PLATFORMS=cpu
elif ! command -v nvidia-smi >/dev/null; then
  echo "error: nvidia-smi: not found, expected a machine with a CUDA GPU; try benchmarks/stability.sh --dry" >&2
  exit 2
fi
[ $# -eq 0 ] && set -- repro cifar10 faces
exec "${PYTHON:-python3}" benchmarks/stability.py "$@" "${options[@]}"
