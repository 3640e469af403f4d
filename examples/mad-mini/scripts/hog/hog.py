"""Take memory until killed, to see how the end of a rank by its memory limit is told.

Run it with a limit (``--memory 128m``). It gives up at ``--most-mib``: a machine without a limit lives.
"""

import argparse
import os
import sys
import time

STEP_MIB = 16

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rank", type=int, default=0, help="the rank that takes memory")
parser.add_argument("--most-mib", type=int, default=1024, help="where it gives up")
parser.add_argument("--patience", type=float, default=30.0, help="seconds that the others wait")
options = parser.parse_args()

rank = int(os.environ.get("RANK", "0"))
if rank != options.rank:
    time.sleep(options.patience)
    sys.exit(0)
held = []
while len(held) * STEP_MIB < options.most_mib:
    held.append(bytearray(os.urandom(4096)) * (STEP_MIB * 256))
    print(f"rank {rank} holds {len(held) * STEP_MIB} MiB", flush=True)
print(f"rank {rank} was not killed at {options.most_mib} MiB: is there a memory limit?", file=sys.stderr)
sys.exit(1)
