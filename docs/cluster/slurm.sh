#!/usr/bin/env bash
# A Ray cluster out of a Slurm allocation, and a study on it:
#
#   sbatch --nodes=4 docs/cluster/slurm.sh dvc repro
#
# Started in the study's folder, with the environment active (`python` has sae-repro and ray on every node). Only the
# first node needs the study's folder; the environment may lie on the shared home or be installed on each node.
# Not run on a Slurm cluster yet: its syntax is tested, and the same commands are in two-nodes.sh, which is.
#SBATCH --job-name=sae-repro
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: sbatch $0 COMMAND…" >&2; exit 2; }
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))

# whoever reaches a cluster runs code on it: its nodes know a secret of this job
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export SAE_REPRO_EXECUTOR=ray SAE_REPRO_RAY_ADDRESS=$ip:$port
# inputs that a node keeps, on its own disk; they go with the job where Slurm cleans up
export SAE_REPRO_NODE_FOLDER=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/sae-repro-$SLURM_JOB_ID

gpus=${SLURM_GPUS_ON_NODE:-0}
start() { # start NODE RAY-ARGUMENTS…
  local node=$1; shift
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" \
    python -m ray.scripts.scripts start "$@" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --block &
}

start "$head" --head --node-ip-address="$ip" --port="$port"
until python -c "import socket; socket.create_connection(('$ip', $port), 2)" 2>/dev/null; do sleep 1; done
for node in "${nodes[@]:1}"; do
  start "$node" --address="$SAE_REPRO_RAY_ADDRESS"
done

# on the first node, which runs this script; nodes that join later are used as they come
"$@"
