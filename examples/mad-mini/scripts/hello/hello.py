"""Say hello and leave a CSV with two results, as a model with ``multiple_results`` does."""

import csv
import os
import platform
import time
from pathlib import Path

began = time.perf_counter()
rank = os.environ.get("RANK", "0")
name = os.environ.get("MAD_OUTPUT_CSV") or "hello_results.csv"
folder = Path(os.environ.get("PHALANX_RESULTS") or ".") / f"rank{rank}"
folder.mkdir(parents=True, exist_ok=True)

print(f"hello from rank {rank} of {os.environ.get('WORLD_SIZE', '1')} on {platform.node()}", flush=True)
total = sum(range(1_000_000))
seconds = time.perf_counter() - began

with (folder / name).open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["model", "performance", "metric"])
    writer.writerow(["additions", f"{1e6 / seconds:.0f}", "additions/s"])
    writer.writerow(["sum", total, "sum"])
