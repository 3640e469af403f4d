#!/bin/bash
# Three results in a CSV, and none on its output.
set -euo pipefail
cat > many_results.csv <<END
model,performance,metric
forward,10.5,ms
backward,21.0,ms
step,33.25,ms
END
