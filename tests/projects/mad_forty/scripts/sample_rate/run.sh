#!/bin/bash
# Tells its result as training frameworks do, without the word performance.
set -euo pipefail
echo "{'train_runtime': 10.0, 'train_samples_per_second': 42.5}"
