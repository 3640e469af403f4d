#!/bin/bash
# A folder of scripts within the folder of a scope.
set -euo pipefail
printf "model,performance,metric\nboxes,120.5,boxes/s\n" > detector.csv
