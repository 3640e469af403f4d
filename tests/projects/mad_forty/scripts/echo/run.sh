#!/bin/bash
# Says what it was given, and a result.
set -euo pipefail
echo "arguments: $*"
echo "performance: 12.3 units"
