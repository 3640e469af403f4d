#!/bin/bash
# Tags of its card are one text with commas.
set -euo pipefail
echo "performance: 3.1e3 GB/s"
