#!/bin/bash
# Starts ranks with the launcher that it is told of, and says what it knows of itself.
set -euo pipefail
echo "runner: ${MAD_MULTI_NODE_RUNNER:-none}"
echo "rank ${RANK:-0} of ${WORLD_SIZE:-1}, node ${NODE_RANK:-0} of ${NNODES:-1}"
echo "performance: 100.0 samples/s"
