#!/usr/bin/env bash
# Training steps on a CUDA GPU, compared with PyTorch, in at most 8 minutes: benchmarks/gpu.sh [--dry] [ROW ...]
#
# A ROW is NETWORK-BATCH-DTYPE, such as lsun-128-bfloat16; by default all rows run, the most important first. Each is one
# run of benchmarks/train_step.py: ours with one step per call and with 16, in turns with PyTorch's modes, the memory, and
# for the first row a profile. Rows for which there is no time left are named at the end: pass them to another call.
#
# Each row appends a line to ${OUT:-.}/gpu.jsonl and prints to ${OUT:-.}/ROW.txt. ${PYTHON:-python3} needs JAX for this
# GPU; without PyTorch only ours is measured. TOTAL and LIMIT are seconds for all rows and for one.
# --dry does the same on the CPU with tiny networks, in about a minute.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=${OUT:-.}
total=${TOTAL:-460}
limit=${LIMIT:-100}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

rows=(lsun-128-float32 lsun-128-bfloat16 cifar10-64-float32 cifar10-64-bfloat16 lsun-512-bfloat16 lsun-2048-bfloat16
  lsun-512-float32 cifar10-512-bfloat16 lsun-2048-float32 cifar10-512-float32)
options=("--steps_per_call=1,16" --repeats=7 --seconds=0.3)
modes=eager,channels_last,compiled_last
if [ "${1:-}" = --dry ]; then
  shift
  rows=(lsun-128-float32 cifar10-64-bfloat16)
  options=("--steps_per_call=1,2" --repeats=2 --seconds=0 --peak_size=128 --width=2 --image_size=8)
  modes=eager
  # PyTorch's threads spin while they wait, for minutes if other programs use the cores.
  export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1
  dry=yes
elif ! command -v nvidia-smi >/dev/null; then
  echo "error: nvidia-smi: not found, expected a machine with a CUDA GPU; try benchmarks/gpu.sh --dry" >&2
  exit 2
fi
[ $# -eq 0 ] || rows=("$@")
for row in "${rows[@]}"; do
  if ! [[ $row =~ ^(lsun|cifar10)-[0-9]+-(float32|bfloat16)$ ]]; then
    echo "error: ROW: found '$row', expected NETWORK-BATCH-DTYPE such as lsun-128-bfloat16 or cifar10-64-float32" >&2
    exit 2
  fi
done

mkdir -p "$out"
peer=(--peer=torch)
"$python" -c "import torch" 2>/dev/null || { echo "PyTorch is not installed: only ours is measured"; peer=(); }
undone=()
profile=(--profile)
for row in "${rows[@]}"; do
  IFS=- read -r network batch dtype <<<"$row"
  left=$((total - SECONDS))
  if [ "$left" -lt 20 ]; then
    undone+=("$row")
    continue
  fi
  # CUDA graphs help PyTorch with small batches, where launching kernels takes most of the time.
  graphs=""
  if [ -z "${dry:-}" ] && [ "$batch" -le 128 ]; then graphs=,cuda_graphs; fi
  [ -z "${dry:-}" ] || batch=4
  echo "== $row"
  timeout --kill-after=5 $((left < limit ? left : limit)) \
    "$python" benchmarks/train_step.py --config="configs/${network/lsun/lsun_bedroom}.py" --batch_size="$batch" --dtype="$dtype" \
    "${peer[@]}" --modes="$modes$graphs" "${options[@]}" "${profile[@]}" --json="$out/gpu.jsonl" >"$out/$row.txt" 2>&1 ||
    { undone+=("$row"); tail -n 3 "$out/$row.txt"; }
  profile=()
done

[ ! -s "$out/gpu.jsonl" ] || "$python" benchmarks/measure.py "$out/gpu.jsonl"
[ ! -s "$out/${rows[0]}.txt" ] || sed -n '/^kind /,$p' "$out/${rows[0]}.txt"
[ ${#undone[@]} -eq 0 ] || { echo "not measured, or not finished: ${undone[*]}"; exit 1; }
