#!/usr/bin/env bash
# Trains on Kubernetes as a JobSet (jobset.sigs.k8s.io, 0.6 or newer), on nodes with GPUs or on a TPU slice of GKE.
set -euo pipefail

usage() {
  cat <<'EOF'
launch/kubernetes/jobset.sh --name=NAME --image=IMAGE --claim=CLAIM --gpus=N [--nodes=N] [options] -- --config=FILE [flags]
launch/kubernetes/jobset.sh --name=NAME --image=IMAGE --claim=CLAIM --tpu=TYPE --topology=AxB --nodes=N [options] -- ...

    launch/kubernetes/jobset.sh --name=faces --image=me/dcgan_jax:1 --claim=disk --gpus=8 -- --config=configs/celeba.py
    launch/kubernetes/jobset.sh --name=faces --image=me/dcgan_jax:1 --claim=disk --tpu=tpu-v5-lite-podslice \
        --topology=4x4 --nodes=4 --dry-run -- --config=configs/celeba.py

After -- come flags of launch/train.py, without --workdir and --config.data.prepared: both are on the claim.

  --name=NAME        name of the job and of the run directory
  --image=IMAGE      image with this repository in its working folder, as launch/kubernetes/Dockerfile makes it
  --claim=CLAIM      a PersistentVolumeClaim that all nodes may write to (ReadWriteMany)
  --gpus=N           GPUs of each node; one process uses them all
  --tpu=TYPE         such as tpu-v5-lite-podslice, with --topology, such as 4x4, and as --nodes its number of machines
  --chips=N          TPU chips of each machine; 4 by default
  --nodes=N          number of nodes; 1 by default
  --max-restarts=N   restarts of the whole job after preemptions and failures; 100 by default
  --grace=SECONDS    time between a preemption's signal and the kill; 25 by default, the most on GKE's spot machines
  --spot             use GKE's spot machines
  --dry-run          print the manifest instead of applying it
EOF
}

die() {
  echo "error: $1" >&2
  exit 2
}

name='' image='' claim='' gpus='' tpu='' topology='' chips=4 nodes=1 max_restarts=100 grace=25
spot=false dry_run=false
while (($#)); do
  case $1 in
    --name=* | --image=* | --claim=* | --gpus=* | --tpu=* | --topology=* | --chips=* | --nodes=* | --max-restarts=* | \
      --grace=*)
      key=${1%%=*} && key=${key#--}
      printf -v "${key//-/_}" '%s' "${1#*=}"
      ;;
    --spot) spot=true ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift
done

for key in name image claim; do
  [[ -n ${!key} ]] || die "--$key: missing; see --help"
done
for key in name claim; do
  [[ ${!key} =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || die "--$key: found '${!key}', expected small letters, digits, -"
done
[[ $image =~ ^[A-Za-z0-9._:/@-]+$ ]] || die "--image: found '$image', expected REGISTRY/NAME:TAG"
[[ -n $gpus || -n $tpu ]] || die "--gpus or --tpu: missing; see --help"
[[ -z $gpus || -z $tpu ]] || die "--gpus and --tpu: found both, expected one"
[[ -z $tpu || $topology =~ ^[0-9]+(x[0-9]+)+$ ]] || die "--topology: found '$topology', expected one such as 4x4"
[[ $tpu =~ ^[a-z0-9-]*$ ]] || die "--tpu: found '$tpu', expected one such as tpu-v5-lite-podslice"
for key in nodes chips grace max_restarts; do
  [[ ${!key} =~ ^[1-9][0-9]*$ ]] || die "--${key//_/-}: found '${!key}', expected a number above 0"
done
[[ $gpus =~ ^([1-9][0-9]*)?$ ]] || die "--gpus: found '$gpus', expected a number above 0"
[[ " $* " == *" --config="* ]] || die "--config: missing, expected after --, such as -- --config=configs/celeba.py"
for flag in "$@"; do
  [[ $flag != --workdir* && $flag != --config.data.prepared* ]] || die "$flag: given by --claim and --name; leave it out"
done

flags=("$@" --workdir="/data/runs/$name" --config.data.prepared=/data/prepared --wait=180)
selectors=()
if [[ -n $gpus ]]; then
  resource="nvidia.com/gpu: $gpus"
  # The first pod's name in the JobSet's own network; the rest of the job has no other way to know it.
  # shellcheck disable=SC2016
  flags+=(--coordinator="$name-train-0-0.$name:8476" --num_processes="$nodes" '--process_id=$(JOB_COMPLETION_INDEX)')
else
  resource="google.com/tpu: $chips" # GKE tells the processes of each other
  selectors+=("cloud.google.com/gke-tpu-accelerator: $tpu" "cloud.google.com/gke-tpu-topology: $topology")
fi
! $spot || selectors+=('cloud.google.com/gke-spot: "true"')

quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

manifest() {
  cat <<EOF
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
spec:
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  failurePolicy:
    maxRestarts: $max_restarts
    rules:
      # Exit code 2: a mistake in the flags or the data, which a restart would repeat.
      - name: mistake
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: train
      replicas: 1
      template:
        spec:
          parallelism: $nodes
          completions: $nodes
          completionMode: Indexed
          # A lost process ends the others: the whole set restarts, from the last checkpoint.
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: train
                  operator: In
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $grace
EOF
  if ((${#selectors[@]})); then
    echo "              nodeSelector:"
    printf '                %s\n' "${selectors[@]}"
  fi
  cat <<EOF
              containers:
                - name: train
                  image: $image
                  # Without a shell: the first process of a container gets the signals.
                  command: [python, launch/train.py]
                  args:
EOF
  for flag in "${flags[@]}"; do
    echo "                    - $(quoted "$flag")"
  done
  cat <<EOF
                  ports:
                    - containerPort: 8476
                  resources:
                    limits:
                      $resource
                  volumeMounts:
                    - name: data
                      mountPath: /data
                    - name: shared-memory
                      mountPath: /dev/shm
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: $claim
                - name: shared-memory
                  emptyDir:
                    medium: Memory
EOF
}

if $dry_run; then
  manifest
else
  command -v kubectl > /dev/null || die "kubectl: not installed; see kubernetes.io/docs/tasks/tools"
  echo "job $name on $nodes nodes, image $image: launch/train.py ${flags[*]}"
  manifest | kubectl apply --filename=-
  echo "kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=$name   shows the log"
  echo "kubectl delete jobset $name   ends it"
fi
