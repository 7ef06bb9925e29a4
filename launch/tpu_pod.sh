#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates or reuses it, installs the last commit of this checkout on all workers, trains,
# streams the log, restarts after a preemption, and deletes the slice if it created it.
set -euo pipefail

usage() {
  cat <<'EOF'
launch/tpu_pod.sh --name=NAME --zone=ZONE --type=TYPE --bucket=BUCKET [options] -- --config=configs/NAME.py [flags]

    launch/tpu_pod.sh --name=faces --zone=us-central2-b --type=v4-32 --bucket=mine -- --config=configs/celeba.py
    launch/tpu_pod.sh --name=faces --zone=us-central2-b --type=v4-32 --bucket=mine --spot --dry-run -- --config=...

After -- come flags of launch/train.py, without --workdir and --config.data.prepared: both are in the bucket, which is
mounted on all workers.

  --name=NAME        name of the slice; the run directory is BUCKET/NAME
  --zone=ZONE        such as us-central2-b
  --type=TYPE        such as v4-32
  --bucket=BUCKET    a bucket of Cloud Storage in the same region, with a hierarchical namespace: without one, checkpoints
                     do not appear under their name in one operation
  --project=PROJECT  by default the one in gcloud's settings
  --version=VERSION  version of the TPU's software; by default tpu-ubuntu2204-base
  --queued           request the slice as a queued resource, and wait for it
  --spot             a slice that costs less and may be preempted
  --retries=N        restarts after a preemption or a failure; 20 by default
  --keep             leave the slice running afterwards; it continues to cost money
  --dry-run          print the commands instead of running them
EOF
}

die() {
  echo "error: $1" >&2
  exit 2
}

name='' zone='' type='' bucket='' project='' version=tpu-ubuntu2204-base retries=20
queued=false spot=false keep=false dry_run=false
while (($#)); do
  case $1 in
    --name=* | --zone=* | --type=* | --bucket=* | --project=* | --version=* | --retries=*)
      key=${1%%=*}
      printf -v "${key#--}" '%s' "${1#*=}"
      ;;
    --queued) queued=true ;;
    --spot) spot=true ;;
    --keep) keep=true ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift
done

for key in name zone type bucket; do
  [[ -n ${!key} ]] || die "--$key: missing; see --help"
done
[[ $name =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] || die "--name: found '$name', expected small letters, digits and -"
[[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || die "--zone: found '$zone', expected one such as us-central2-b"
[[ $type =~ ^[a-z0-9]+-[0-9]+$ ]] || die "--type: found '$type', expected one such as v4-32"
[[ $bucket =~ ^[a-z0-9][a-z0-9._-]*[a-z0-9]$ ]] || die "--bucket: found '$bucket', expected a name without gs://"
[[ $retries =~ ^[0-9]+$ ]] || die "--retries: found '$retries', expected a number"
[[ " $* " == *" --config="* ]] || die "--config: missing, expected after --, such as -- --config=configs/celeba.py"
for flag in "$@"; do
  [[ $flag != --workdir* && $flag != --config.data.prepared* ]] || die "$flag: given by --bucket and --name; leave it out"
done
$dry_run || command -v gcloud > /dev/null || die "gcloud: not installed; see cloud.google.com/sdk"

printf '%s\n' "slice $name ($type) in $zone, project ${project:-of gcloud}, software $version" \
  "spot $spot, queued $queued, retries $retries, keep $keep" \
  "run in gs://$bucket/$name: launch/train.py $*"

$dry_run || [[ -z $(git status --porcelain) ]] || echo "what is not committed is left behind" >&2

where=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")
created=false
log=$name.log
! $dry_run || log=/dev/null

run() {
  if $dry_run; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() { run gcloud compute tpus tpu-vm "$@" "${where[@]}"; }

# Prints the slice's state (READY or another of Google's), or MISSING. Fails if the state cannot be found out: that must
# not look as if there were no slice.
state() {
  local output
  if $dry_run; then
    echo MISSING
  elif output=$(gcloud compute tpus tpu-vm describe "$name" "${where[@]}" --format='value(state)' 2>&1); then
    echo "$output"
  elif [[ $output == *NOT_FOUND* || $output == *"not found"* ]]; then
    echo MISSING
  else
    echo "$output" >&2
    return 1
  fi
}

delete() {
  if $queued; then
    run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --quiet --force
  else
    tpu delete "$name" --quiet
  fi
}

create() {
  local options=(--accelerator-type="$type") queue
  ! $spot || options+=(--spot)
  if ! $queued; then
    tpu create "$name" "${options[@]}" --version="$version" || return 1
    created=true
    return
  fi
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" "${options[@]}" \
    --runtime-version="$version" || return 1
  created=true
  until $dry_run || [[ $(state) == READY ]]; do
    queue=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)') || return 1
    echo "in the queue for $name: $queue"
    [[ $queue != FAILED && $queue != SUSPENDED ]] || return 1
    sleep 60
  done
}

install() {
  local archive=${TMPDIR:-/tmp}/$name.tar.gz
  # A process left over from an earlier connection holds the TPU: it is asked to save, and then killed.
  # The TPU's own Python is too old for JAX; uv installs a newer one.
  run git archive --format=tar.gz --prefix=dcgan_jax/ --output="$archive" HEAD &&
    tpu scp "$archive" "$name:dcgan_jax.tar.gz" --worker=all &&
    tpu ssh "$name" --worker=all --command="set -e
      if old=\$(cat train.pid 2> /dev/null) && kill -TERM \$old 2> /dev/null; then
        sleep 30
        kill -KILL \$old 2> /dev/null || true
      fi
      rm -f train.pid exit_code
      tar -xzf dcgan_jax.tar.gz && cd dcgan_jax
      python3 -m pip install --quiet --user uv
      ~/.local/bin/uv venv --quiet --python 3.12 --clear .venv
      ~/.local/bin/uv pip install --quiet --python .venv/bin/python '.[tpu]'
      mkdir -p ~/bucket
      mountpoint -q ~/bucket || gcsfuse --implicit-dirs $bucket ~/bucket"
}

train() {
  local flags
  flags=$(printf ' %q' "$@")
  tpu ssh "$name" --worker=all --command="cd dcgan_jax
    .venv/bin/python launch/train.py$flags --workdir=\$HOME/bucket/$name --wait=180 \\
      --config.data.prepared=\$HOME/bucket/prepared &
    echo \$! > ../train.pid
    wait \$!
    echo \$? > ../exit_code
    rm ../train.pid" 2>&1 | tee -a "$log" || true
  if $dry_run; then
    code=0
    return
  fi
  # The file is missing if the connection broke or the slice is gone.
  code=$(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 --command='cat exit_code') || code=lost
}

# shellcheck disable=SC2329 # called by the trap
finish() {
  if $created && ! $keep; then
    delete || echo "error: $name could not be deleted, and costs" >&2
  elif ! $dry_run; then
    echo "$name is left as it is; while it runs, it costs"
  fi
}

trap finish EXIT
code=lost
for ((attempt = 0; attempt <= retries; attempt++)); do
  ((attempt == 0)) || sleep 30
  current=$(state) || die "the state of $name cannot be told; mend that, and start again"
  case $current in
    READY) ;;
    MISSING)
      # The queued resource still exists after its slice was preempted.
      if $created && $queued; then delete || true; fi
      create || continue
      ;;
    *)
      $created || die "$name is $current, and was not created here; start it, delete it, or pass another --name"
      delete || true # preempted, or broken
      create || continue
      ;;
  esac
  if install; then
    train "$@"
    case $code in
      0) exit 0 ;;
      2) die "a mistake in the flags or the data, told in $log; not started again" ;;
    esac
  fi
  echo "training ended with $code; starting again ($((attempt + 1)) of $retries)" >&2
done
echo "error: gave up after $retries more starts; see $log" >&2
exit 1
