#!/bin/bash
# Prints a line that looks like an error and is none, says its card.
set -euo pipefail
echo "RuntimeError: expected here"
echo "performance: 5.5 checks/s"
