"""Fail on one rank with a given status while the others go on, to see how a failure is told."""

import argparse
import os
import sys
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rank", type=int, default=1, help="the rank that fails")
parser.add_argument("--status", type=int, default=7, help="its exit status")
parser.add_argument("--after", type=float, default=0.5, help="seconds until then")
parser.add_argument("--patience", type=float, default=30.0, help="seconds that the others go on")
options = parser.parse_args()

rank = int(os.environ.get("RANK", "0"))
print(f"rank {rank} is here", flush=True)
if rank == options.rank:
    time.sleep(options.after)
    print(f"rank {rank} fails now with status {options.status}", file=sys.stderr, flush=True)
    sys.exit(options.status)
time.sleep(options.patience)
print(f"rank {rank} is done and nobody stopped it\nperformance: 1 ranks", flush=True)
