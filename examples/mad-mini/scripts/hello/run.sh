#!/bin/bash
# The smallest model that has results of its own: a CSV from every rank.
set -euo pipefail
exec python3 hello.py "$@"
