#!/bin/bash
# Runs once on each node. HANG_ON and WRONG_PORT_ON name the rank of a node that goes wrong.
set -eu
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1
runner=$MAD_MULTI_NODE_RUNNER
if [ "${WRONG_PORT_ON:-}" = "$NODE_RANK" ]; then
	runner=${runner/--master_port=$MASTER_PORT/--master_port=$((MASTER_PORT + 1))}
fi
echo "node $NODE_RANK: $runner"
if [ "${HANG_ON:-}" = "$NODE_RANK" ]; then
	exec sleep 3600
fi
exec $runner train.py
