#!/bin/bash
# Runs in the clone of the repository that its card names.
set -euo pipefail
ls
echo "performance: 1.0 clones"
