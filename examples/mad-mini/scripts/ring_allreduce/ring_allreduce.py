"""A multi-node program in miniature: ranks meet, form a ring, sum vectors over it, check every sum.

Runs anywhere the environment contract is kept (see ``contract``). With an agent (PHALANX_SOCKET) the ranks
meet at its barrier, without one at a barrier of their own. Each rank writes a CSV, rank 0 prints
the performance.
"""

import argparse
import csv
import os
import statistics
import sys
import time
from array import array
from pathlib import Path

import meeting
import rendezvous
from contract import World
from ring import Alone, Ring

#: Length of the pattern in the vectors: a prime, so that no chunk boundary falls on its period.
PERIOD = 97


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=float, default=4.0, help="size of the vector on each rank in MiB")
    parser.add_argument("--iterations", type=int, default=5, help="all-reduces to do")
    options = parser.parse_args()
    if not 0 < options.mib <= 4096 or not 1 <= options.iterations <= 1_000_000:
        parser.error("expected --mib above 0 and up to 4096, --iterations 1 to 1000000")
    return options


def pattern(length, factor, shift):
    """A vector whose element i is ``(i mod 97 + 1) * factor + shift``: sums of it are exact in doubles."""
    period = array("d", ((index + 1) * factor + shift for index in range(PERIOD)))
    return (period * (length // PERIOD + 1))[:length]


def say(world, text):
    """A line of this rank's log."""
    print(f"[rank {world.rank}] {text}", flush=True)


def meet(world, ring, name):
    """Wait for all ranks: at the agent's barrier, else round the ring."""
    if not meeting.barrier(name, world.rank):
        ring.barrier()


def form_ring(world):
    """This rank's place in the ring."""
    if world.size == 1:
        return Alone()
    with rendezvous.listen() as server:
        addresses = rendezvous.exchange(world, server.getsockname()[1])
        ring = Ring(world, addresses, server)
    say(world, f"ring of {world.size} ranks on {world.nodes} nodes is closed")
    return ring


def work(world, ring, options):
    """All iterations; the seconds of each. Raises SystemExit for a wrong sum."""
    length = max(world.size, int(options.mib * 1024 * 1024 / 8))
    spent = []
    for iteration in range(options.iterations):
        vector = pattern(length, world.rank + 1, iteration)
        meet(world, ring, f"iteration-{iteration}")
        began = time.perf_counter()
        ring.allreduce(vector)
        spent.append(time.perf_counter() - began)
        expected = pattern(length, world.size * (world.size + 1) // 2, world.size * iteration)
        if vector != expected:
            wrong = next(index for index in range(length) if vector[index] != expected[index])
            raise SystemExit(
                f"rank {world.rank}: sum {wrong} of iteration {iteration} "
                f"is {vector[wrong]}, not {expected[wrong]}"
            )
        speed = 8 * length / spent[-1] / 1e6
        say(
            world,
            f"iteration {iteration + 1}/{options.iterations} sums ok {spent[-1]:.4f} s {speed:.1f} MB/s",
        )
    return length, spent


def write_results(world, options, speed):
    """One CSV of this rank, where the agent collects it, else in the working directory."""
    folder = Path(os.environ.get("PHALANX_RESULTS") or ".")
    path = folder / f"perf_rank{world.rank}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "performance", "metric", "rank", "node_rank", "iterations", "mib"])
        row = ["ring_allreduce", f"{speed:.2f}", "MB/s", world.rank, world.node_rank]
        writer.writerow([*row, options.iterations, f"{options.mib:g}"])


def main():
    """Meet, sum, check, report."""
    options = arguments()
    world = World.from_environment()
    say(world, f"of {world.size} on node {world.node_rank} of {world.nodes}, pid {os.getpid()}")
    try:
        ring = form_ring(world)
        meet(world, ring, "ring")
        length, spent = work(world, ring, options)
        meet(world, ring, "done")
        ring.close()
    except (OSError, RuntimeError) as error:
        print(f"[rank {world.rank}] cannot go on: {error}", file=sys.stderr, flush=True)
        return 1
    speed = 8 * length / statistics.median(spent) / 1e6
    write_results(world, options, speed)
    if world.rank == 0:
        print(f"performance: {speed:.2f} MB/s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
