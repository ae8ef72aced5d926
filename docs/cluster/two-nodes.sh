#!/usr/bin/env bash
# A Ray cluster of two nodes on one machine that share neither network nor the study's folder, to try what
# docs/scaling-out.md describes. Linux, root, and `pip install '.[ray]'` for the `python` on PATH.
#
#   docs/cluster/two-nodes.sh STUDY COMMAND…       such as: two-nodes.sh . dvc repro train evaluate
#
# Node 1 has the folder STUDY and runs COMMAND in it. Node 2 has a network namespace, a host name, shared memory and
# a copy of the code of its own; an empty folder stands in the place of STUDY for it.
#
#   KILL=1      kill all processes of node 2 once it has a checkpoint of a training that it has not finished
#   ALONE=1     no node 2
#   CPUS=1      of each node
#   WORK=…      folder for the copies and logs; made, and left for a look, if it is not given
set -euo pipefail

[ $# -ge 2 ] || { sed -n '5p' "$0"; exit 2; }
study=$(realpath "$1"); shift
source=$(python -c 'import sae_repro; print(sae_repro.__path__[0])')
work=${WORK:-$(mktemp -d -t two-nodes-XXXXXX)}
cpus=${CPUS:-1}
one=sae-$$-1 two=sae-$$-2        # network namespaces
net=10.213.$(($$ % 250))         # of a pair of virtual devices between them
watch=

export RAY_raylet_start_wait_time_s=300 RAY_health_check_timeout_ms=60000 RAY_worker_niceness=0
export RAY_USAGE_STATS_ENABLED=0 RAY_DISABLE_METRICS_COLLECTION=1
# whoever reaches a cluster runs code on it: all who belong to it know a secret
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$work/token
export SAE_REPRO_EXECUTOR=ray SAE_REPRO_RAY_ADDRESS=$net.1:6379

end() {
  local ids
  [ -z "$watch" ] || kill "$watch" 2>/dev/null || true
  for name in $one $two; do
    ids=$(ip netns pids $name 2>/dev/null || true)
    [ -z "$ids" ] || kill -9 $ids 2>/dev/null || true
    ip netns del $name 2>/dev/null || true
  done
}
trap end EXIT

mkdir -p "$work"/{1,2}/{ray,node}
(umask 077; python -c 'import secrets; print(secrets.token_hex(32))' >"$work/token")
for name in $one $two; do
  ip netns add $name
  ip -n $name link set lo up
done
ip link add v$$-1 netns $one type veth peer name v$$-2 netns $two
ip -n $one addr add $net.1/24 dev v$$-1; ip -n $one link set v$$-1 up
ip -n $two addr add $net.2/24 dev v$$-2; ip -n $two link set v$$-2 up

# in_node NUMBER COMMAND…: /tmp/ray, /dev/shm, the host's name and the kept inputs are the node's own
in_node() {
  local number=$1 name=sae-$$-$1; shift
  ip netns exec $name unshare --mount --uts bash -c '
    set -e
    number=$1 own=$2 study=$3; shift 3
    mkdir -p /tmp/ray
    mount --bind "$own/ray" /tmp/ray
    mount -t tmpfs -o size=2g none /dev/shm
    hostname node-$number
    if [ $number = 2 ]; then
      mount -t tmpfs none "$study"
      export PYTHONPATH=$own/src${PYTHONPATH:+:$PYTHONPATH}
    fi
    export SAE_REPRO_NODE_FOLDER=$own/node
    exec "$@"' - "$number" "$work/$number" "$study" "$@"
}

# node 1's processes and the command see the same /tmp/ray and /dev/shm: one mount namespace
if [ -z "${ALONE:-}" ]; then
  mkdir -p "$work/2/src"
  cp -r "$source" "$work/2/src/"
  (
    # joins once the first node is there
    for _ in $(seq 300); do
      ip netns exec $two python -c "import socket; socket.create_connection(('$net.1', 6379), 2)" 2>/dev/null && break
      sleep 1
    done
    cd "$work/2"
    in_node 2 python -m ray.scripts.scripts start --address=$net.1:6379 --node-ip-address=$net.2 --num-cpus=$cpus \
      --object-store-memory=200000000
  ) >"$work/2/log" 2>&1 &
fi

if [ -n "${KILL:-}" ]; then
  (
    until compgen -G "$work/2/node/places/*/.sae-repro/checkpoints/*" >/dev/null; do sleep 0.1; done
    ls "$work"/2/node/places/*/.sae-repro/checkpoints >"$work/killed"
    kill -9 $(ip netns pids $two)
    echo 'two-nodes: killed node 2' >&2
  ) &
  watch=$!
fi

started=$(date +%s)
in_node 1 bash -c '
  set -e
  address=$1 cpus=$2 alone=$3 study=$4; shift 4
  python -m ray.scripts.scripts start --head --node-ip-address=${address%:*} --port=6379 --num-cpus=$cpus \
    --object-store-memory=200000000 --include-dashboard=false >/dev/null
  if [ -z "$alone" ]; then
    python - <<END
import logging, time, ray
ray.init(address="$address", log_to_driver=False, logging_level=logging.ERROR)
until = time.monotonic() + 300
while sum(node["Alive"] for node in ray.nodes()) < 2:
    assert time.monotonic() < until, "node 2 has not joined"
    time.sleep(0.5)
END
  fi
  cd "$study"
  begin=$(date +%s%3N)
  "$@"
  took=$(($(date +%s%3N) - begin))
  printf "two-nodes: the command took %d.%03d s\n" $((took / 1000)) $((took % 1000)) >&2' - \
  "$SAE_REPRO_RAY_ADDRESS" "$cpus" "${ALONE:-}" "$study" "$@"
echo "two-nodes: $(($(date +%s) - started)) s with the start of the nodes; copies and logs in $work" >&2
