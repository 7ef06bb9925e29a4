#!/usr/bin/env bash
# Training steps on a CUDA GPU, compared with PyTorch, in at most 8 minutes: benchmarks/gpu.sh [FLAG ...] [ROW ...]
#
# A ROW is NETWORK-BATCH-DTYPE, such as lsun-128-bfloat16, or one of the FLAGs. By default the plan is run, the most
# important row first; all but the last, --sampling, are expected to fit into the 8 minutes. Each is a process of its own:
# our step with the convolutions chosen for the device, for one row also with XLA's and with the fastest of
# --formulations; then, in turns with ours, PyTorch's modes. Every number is printed to ${OUT:-.}/ROW.txt and appended to
# ${OUT:-.}/gpu.jsonl the moment it is known, so that nothing is lost if this is killed. What there was no time for is
# named at the end: pass it to another call.
#
#   --formulations[-ROW]  every layer and pass of the LSUN network (or of ROW's) in each formulation
#   --calls[-ROW]         the library calls of the compiled step: kind, result, window, layout, time
#   --flags[-ROW]         the step by XLA's flags, each in a process of its own
#   --sampling[-ROW]      10,000 sampled images, compared with PyTorch, and Inception's features of as many
#   --plan                prints the plan alone
#   --dry                 the same on the CPU with tiny networks, in about a minute
#
# ${PYTHON:-python3} needs JAX for this GPU; without PyTorch only ours is measured. TOTAL is the seconds for all rows.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=${OUT:-.}
total=${TOTAL:-480}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

# Rows by worth, with the seconds each is expected to take: 10 for imports and devices, 20 to compile a step, twice in
# threads 25, 55 for PyTorch's compiler, 5 for its other modes, and 1 for each that is measured.
plan=(--formulations:80 lsun-512-bfloat16:110 lsun-128-bfloat16:40 cifar10-64-bfloat16:45 faces-128-bfloat16:40
  lsun-2048-bfloat16:45 cifar10-512-bfloat16:40 lsun-128-float32:45 cifar10-64-float32:35 --sampling:100)
default=lsun-512-bfloat16
options=(--repeats=5 --seconds=0.3)
compiled=compiled_last graphs=,cuda_graphs both=chosen,plain,fastest
sampling=(--count=10000 "--features=inception,quality")

dry=""
rows=()
for argument in "$@"; do
  case "$argument" in
    --dry) dry=yes ;;
    --plan) printf '%s\n' "${plan[@]/:/ }" && exit ;;
    *) rows+=("$argument") ;;
  esac
done
if [ -n "$dry" ]; then
  plan=(--formulations:20 lsun-512-bfloat16:40 --sampling:20)
  options=(--repeats=2 --seconds=0 --peak_size=128 --width=2 --image_size=8)
  compiled=eager graphs="" sampling=(--count=70 --features=quality)
  # PyTorch's threads spin while they wait, for minutes if other programs use the cores.
  export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 XLA_FLAGS="${XLA_FLAGS:---xla_backend_optimization_level=0}"
fi
if [ ${#rows[@]} -eq 0 ]; then rows=("${plan[@]%:*}"); fi
for row in "${rows[@]}"; do
  if ! [[ $row =~ ^(--(formulations|calls|flags|sampling)-?)?((lsun|faces|cifar10)-[0-9]+-(float32|bfloat16))?$ && -n $row ]]; then
    echo "error: ROW: found '$row', expected NETWORK-BATCH-DTYPE such as lsun-128-bfloat16 or cifar10-64-float32," \
      "--formulations, --calls, --flags or --sampling" >&2
    exit 2
  fi
done
if [ -z "$dry" ] && ! command -v nvidia-smi >/dev/null; then
  echo "error: nvidia-smi: not found, expected a machine with a CUDA GPU; try benchmarks/gpu.sh --dry" >&2
  exit 2
fi

seconds_of() { # ROW: as the plan says, or by its kind
  local known
  for known in "${plan[@]}"; do
    [ "${known%:*}" != "$1" ] || { echo "${known##*:}" && return; }
  done
  case "$1" in --flags*) echo 200 ;; --sampling*) echo 100 ;; --formulations*) echo 60 ;; *) echo 45 ;; esac
}

measure() { # ROW SECONDS
  local row=$1 what="" network batch dtype program=train_step flags=() modes=channels_last environment=()
  if [[ $row =~ ^--(formulations|calls|flags|sampling)-?(.*)$ ]]; then
    what=${BASH_REMATCH[1]} row=${BASH_REMATCH[2]:-$default}
  fi
  IFS=- read -r network batch dtype <<<"$row"
  network=${network/lsun/lsun_bedroom} network=${network/faces/celeba}
  if [ "$row" = "$default" ]; then flags=("--conv=$both") modes=channels_last,$compiled; fi
  # CUDA graphs help PyTorch with small batches, where launching kernels takes most of the time.
  if [ "$batch" -le 64 ]; then flags=("--steps_per_call=1,16") modes=$modes$graphs; fi
  [ -z "$dry" ] || { batch=4 modes=eager; }
  case "$what" in
    formulations) program=formulations flags=(--seconds=0.02) ;;
    calls) flags=(--calls) environment=("XLA_FLAGS=${XLA_FLAGS:-} --xla_gpu_enable_command_buffer=") ;;
    flags) flags=(--flags) ;;
    sampling) program=sampling flags=(--peer=torch "--modes=$modes" "${sampling[@]}") ;;
    *) flags+=(--peer=torch "--modes=$modes") ;;
  esac
  [ -z "$dry" ] || environment=()
  timeout --kill-after=5 "$2" env "${environment[@]}" "$python" "benchmarks/$program.py" --config="configs/$network.py" \
    --batch_size="$batch" --dtype="$dtype" "${options[@]}" "${flags[@]}" --kept_peak="$out/peak.json" --json="$out/gpu.jsonl"
}

mkdir -p "$out"
# What one process compiled and tuned the next need not.
JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
export JAX_COMPILATION_CACHE_DIR JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
trap 'rm -rf "$JAX_COMPILATION_CACHE_DIR"' EXIT
echo "the plan, with the seconds that each row is expected to take, in $total:"
for row in "${rows[@]}"; do echo "  $(seconds_of "$row") $row"; done
undone=()
for row in "${rows[@]}"; do
  left=$((total - SECONDS))
  if [ "$left" -lt "$(seconds_of "$row")" ]; then
    undone+=("$row")
    continue
  fi
  echo "== $row, at ${SECONDS} s"
  measure "$row" "$left" 2>&1 | tee "$out/${row#--}.txt" || undone+=("$row")
done

[ ! -s "$out/gpu.jsonl" ] || "$python" benchmarks/measure.py "$out/gpu.jsonl"
[ ${#undone[@]} -eq 0 ] || { echo "not measured, or not finished: ${undone[*]}"; exit 1; }
