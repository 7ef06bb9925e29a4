#!/usr/bin/env bash
# The paper's experiments, from training to tables and figures: benchmarks/reproduce.sh [--dry] [EXPERIMENT ...]
#
#   mnist     mnist_conditional.py, recipes paper and dense: samples, nearest neighbours        (table 3, figure 9)
#   svhn      svhn.py:paper: samples, the probe on 1,000 labels, the supervised network         (table 2)
#   imagenet  imagenet32.py:paper: samples, the probe on CIFAR-10                               (table 1, figure 11)
#   faces     celeba.py:paper: samples, walks, arithmetic and turns of random exemplars, with a
#             sheet to choose others from, neighbours                                           (figures 4, 7, 8, 10)
#   bedrooms  lsun_bedroom.py:paper without near-duplicates: samples after 1 and 5 epochs, walks, guided
#             backpropagation; with BOXES=FILE forgotten windows                                (figures 2 to 6)
#
# By default all experiments run. After a stop the same command continues, also within a training. Runs are in
# ${OUT:-runs/reproduced}; its times.jsonl has a line for each finished step, with the device and the seconds since the
# step was last started. ${PYTHON:-python3} runs everything. Data sets, as SOURCE:PLACE:
#
#   MNIST=idx:data/mnist  SVHN=tfds:svhn_cropped  CIFAR10=tfds:cifar10  IMAGENET=tfds:imagenet_resized/32x32
#   CELEBA=folder:data/img_align_celeba.zip  LSUN=lmdb:data/bedroom_train_lmdb
#
# --dry does the same on the CPU with few steps and scikit-learn's digits.
set -euo pipefail
[ -z "${OUT:-}" ] || OUT=$(realpath --canonicalize-missing "$OUT")
[ -z "${BOXES:-}" ] || BOXES=$(realpath --canonicalize-missing "$BOXES")
cd "$(dirname "$0")/.."

experiments=(mnist svhn imagenet faces bedrooms)
python=${PYTHON:-python3}
out=${OUT:-runs/reproduced}
: "${MNIST:=idx:data/mnist}" "${SVHN:=tfds:svhn_cropped}" "${CIFAR10:=tfds:cifar10}"
: "${IMAGENET:=tfds:imagenet_resized/32x32}" "${CELEBA:=folder:data/img_align_celeba.zip}"
: "${LSUN:=lmdb:data/bedroom_train_lmdb}"
card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sort | uniq -c | xargs) || card=CPU
bedrooms_epoch=11700
svhn=(--labels_per_class=100 --draws=100) supervised=() imagenet=("--labels_per_class=all,400")
neighbours=("--samples=50000,10000000") small=()

make_small() {
  export JAX_PLATFORMS=cpu
  card=CPU out=${OUT:-$(mktemp -d)}
  [ -d "$out/digits" ] || "$python" - "$out/digits.partial" <<'EOF'
import pathlib, sys
from PIL import Image
from sklearn.datasets import load_digits

for i, (image, label) in enumerate(zip(*load_digits(return_X_y=True))):
    folder = pathlib.Path(sys.argv[1], "test" if i % 5 == 0 else "train", str(label))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image.reshape(8, 8) * 15.9).astype("uint8")).save(folder / f"{i}.png")
pathlib.Path(sys.argv[1]).rename(sys.argv[1].removesuffix(".partial"))
EOF
  MNIST=folder:$out/digits/train
  SVHN=$MNIST CIFAR10=$MNIST IMAGENET=$MNIST CELEBA=$MNIST LSUN=$MNIST
  bedrooms_epoch=1
  svhn=(--labels_per_class=20 --draws=2) supervised=(--trials=2 --images_seen=40) imagenet=(--labels_per_class=20)
  neighbours=("--samples=20,30")
  small=(--config.batch_size=4 --config.width=2 --config.num_steps=2 --config.lr_decay_steps=0)
}

finished() {
  grep -qsF "{\"step\": \"$1\"," "$out/times.jsonl"
}

# step NAME LAUNCHER FLAG...: runs a launcher, unless the step of this name is finished.
step() {
  local name=$1 began=$SECONDS
  ! finished "$name" || return 0
  echo "== $name"
  "$python" "launch/$2.py" "${@:3}"
  printf '{"step": "%s", "seconds": %d, "card": "%s"}\n' "$name" $((SECONDS - began)) "$card" >>"$out/times.jsonl"
}

# located SOURCE:PLACE: sets `data` to the flags for this data set.
located() {
  data=(--config.data.prepared="$out/prepared" --config.data.source="${1%%:*}" --config.data.path="${1#*:}")
  [ "${1%%:*}" != tfds ] || data+=(--config.data.path= --config.data.name="${1#*:}")
}

# train RUN CONFIG SOURCE:PLACE FLAG...
train() {
  located "$3"
  step "train $*" train --config="configs/$2" --workdir="$out/$1" "${data[@]}" "${small[@]}" "${@:4}"
}

# of RUN LAUNCHER ARGUMENT...: a measurement of a run.
of() {
  step "$*" "${@:2}" --workdir="$out/$1"
}

# picture RUN NAME LAUNCHER ARGUMENT...: writes to $out/pictures/RUN/NAME; starts over if it was not finished.
picture() {
  local folder=$out/pictures/$1/$2 file=
  [ "$3" != sample ] || file=/grid.png
  finished "$1 $2" || rm -rf "$folder.partial"
  step "$1 $2" "${@:3}" --workdir="$out/$1" --out="$folder.partial$file"
  [ ! -d "$folder.partial" ] || mv --no-target-directory "$folder.partial" "$folder"
}

reproduce_mnist() {
  local recipe
  for recipe in paper dense; do
    train "mnist_$recipe" "mnist_conditional.py:$recipe" "$MNIST"
    picture "mnist_$recipe" samples sample
    of "mnist_$recipe" nearest_neighbour "${neighbours[@]}" --real
  done
}

reproduce_svhn() {
  train svhn svhn.py:paper "$SVHN"
  picture svhn samples sample
  of svhn probe "${svhn[@]}"
  of svhn supervised "${svhn[0]}" "${supervised[@]}"
}

reproduce_imagenet() {
  train imagenet imagenet32.py:paper "$IMAGENET"
  picture imagenet samples sample
  of imagenet probe --data="${CIFAR10#*:}" "${imagenet[@]}"
}

reproduce_faces() {
  local figure
  train faces celeba.py:paper "$CELEBA"
  picture faces samples sample
  for figure in walk neighbours; do picture faces $figure figure $figure; done
  for figure in arithmetic turn; do picture faces $figure figure $figure --exemplars=random; done
  picture faces contact_sheet figure arithmetic
}

reproduce_bedrooms() {
  local figure unique
  located "$LSUN"
  step "prepare bedrooms" prepare --config=configs/lsun_bedroom.py:paper --deduplicate "${data[@]}"
  unique=$(echo "$out"/prepared/*-deduplicated-*)
  train bedrooms lsun_bedroom.py:paper "prepared:$unique" --config.num_steps=$bedrooms_epoch
  picture bedrooms samples_1_epoch sample
  train bedrooms lsun_bedroom.py:paper "prepared:$unique"
  picture bedrooms samples sample
  for figure in walk guided_backprop; do picture bedrooms $figure figure $figure; done
  [ -z "${BOXES:-}" ] || picture bedrooms "forget_$(basename "$BOXES" .json)" figure forget --boxes="$BOXES"
}

if [ "${1:-}" = --dry ]; then
  shift
  dry=yes
fi
[ $# -gt 0 ] || set -- "${experiments[@]}"
for experiment in "$@"; do
  if ! [[ " ${experiments[*]} " == *" $experiment "* ]]; then
    echo "error: EXPERIMENT: found '$experiment', expected some of ${experiments[*]}" >&2
    exit 2
  fi
done
[ -z "${dry:-}" ] || make_small
mkdir -p "$out"
for experiment in "$@"; do "reproduce_$experiment"; done
