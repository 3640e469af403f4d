#!/bin/bash
# The model script of the main job: one process per rank, nothing but Python's standard library.
set -euo pipefail
exec python3 ring_allreduce.py "$@"
