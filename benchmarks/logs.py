"""What it costs to bring the output of all nodes to one file on the login node, beside ``srun -l``.

Every rank prints ``--lines`` lines of 120 bytes. Ours is the whole path: spool file, agent, TLS, controller,
a synced file per rank in the run directory, and ``phalanx run`` that prints labelled lines into a file; the
peer's is ``srun -l > file``. Each is also run as often with nothing to print: the differences from the median
of those (``stream_*``) are what the lines alone cost, without starting anything. ``lines_per_login_cpu_s`` is
of the whole command, ``stream_lines_per_login_cpu_s`` of the difference; ``times_srun_l`` and
``stream_times_srun_l`` are how many times the peer's figure they are.
Every rank's stream is compared byte for byte, in the run directory and as it was shown.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.crew import BenchmarkError
from benchmarks.lab_runs import Cost, LabRuns, lab_runs, median
from benchmarks.report import document, show

PYTHON = "/usr/bin/python3"
LINE_BYTES = 120
#: Lines that the workload hands to its standard output in one write: one at a time, or about 60 KB.
WRITES = {"lines": 1, "blocks": 500}
#: Log lines and the last screen only, labelled as srun -l does.
QUIET = ("--progress", "quiet", "--prefix", "host")
#: What each rank runs: argv[1] lines in writes of argv[2] lines.
WRITER = f"""
import os, sys
rank = os.environ.get("RANK") or os.environ["SLURM_PROCID"]
count, step = int(sys.argv[1]), int(sys.argv[2])
for first in range(0, count, step):
    numbers = range(first, min(count, first + step))
    block = "".join(("%08d rank %s " % (n, rank)).ljust({LINE_BYTES - 1}, "x") + "\\n" for n in numbers)
    os.write(1, block.encode())
"""


def expected(rank: int, lines: int) -> str:
    """The digest of what a rank prints."""
    digest = hashlib.sha256()
    for number in range(lines):
        digest.update((f"{number:08d} rank {rank} ".ljust(LINE_BYTES - 1, "x") + "\n").encode())
    return digest.hexdigest()


def shown(path: Path) -> tuple[dict[bytes, str], int]:
    """What was shown under each label, as a digest, and how many lines were not whole."""
    digests: dict[bytes, Any] = {}
    broken = 0
    with path.open("rb") as file:
        for line in file:
            label, _, rest = line.partition(b": ")
            broken += len(rest) != LINE_BYTES
            digests.setdefault(label.strip(), hashlib.sha256()).update(rest)
    return {label: digest.hexdigest() for label, digest in digests.items()}, broken


def check(found: Iterable[str], lines: int, nodes: int, what: str) -> None:
    """Raises BenchmarkError unless every rank's stream is there, byte for byte."""
    if sorted(found) != sorted(expected(rank, lines) for rank in range(nodes)):
        raise BenchmarkError(f"{what} is not what the ranks printed")


def figures(cost: Cost, idle: Cost, lines: int) -> dict[str, Any]:
    """The cost of ``lines`` lines and of nothing, as reported."""
    stream = cost.less(idle)
    # No figure where the lines cost less than one start differs from the next.
    rate = lines / stream.login_cpu_s if stream.login_cpu_s > 0 else 0.0
    return {
        "wall_s": round(cost.wall_s, 3),
        "lines_per_s": round(lines / cost.wall_s, 1),
        "login_cpu_s": round(cost.login_cpu_s, 3),
        "nodes_cpu_s": round(cost.nodes_cpu_s, 3),
        "lines_per_login_cpu_s": round(lines / cost.login_cpu_s, 1),
        "stream_wall_s": round(stream.wall_s, 3),
        "stream_login_cpu_s": round(stream.login_cpu_s, 3),
        "stream_nodes_cpu_s": round(stream.nodes_cpu_s, 3),
        "stream_lines_per_login_cpu_s": round(rate, 1),
    }


@dataclass(frozen=True, slots=True)
class Pair:
    """One command with nothing to print, and with the lines, one right after the other."""

    idle: Cost
    full: Cost
    broken: int


def ours(lab: LabRuns, lines: int, step: int) -> Pair:
    """The whole path of phalanx."""
    nodes, output = len(lab.lab.nodes), lab.folder / "shown"
    idle, _ = lab.phalanx(PYTHON, "-c", WRITER, "0", str(step), options=QUIET)
    cost, run_dir = lab.phalanx(PYTHON, "-c", WRITER, str(lines), str(step), options=QUIET, output=output)
    kept = [hashlib.sha256(path.read_bytes()).hexdigest() for path in run_dir.glob("logs/*/rank*.out")]
    check(kept, lines, nodes, "the run directory")
    digests, broken = shown(output)
    check(digests.values(), lines, nodes, "what phalanx run showed")
    return Pair(idle, cost, broken)


def srun_l(lab: LabRuns, lines: int, step: int) -> Pair:
    """``srun -l`` into a file. Its lines may be broken: they are counted, not refused."""
    output = lab.folder / "labelled"
    idle = lab.srun(PYTHON, "-c", WRITER, "0", str(step), options=["-l"])
    cost = lab.srun(PYTHON, "-c", WRITER, str(lines), str(step), options=["-l"], output=output)
    return Pair(idle, cost, shown(output)[1])


def times(mine: dict[str, Any], theirs: dict[str, Any], figure: str) -> float:
    """How many times the peer's figure ours is."""
    return round(float(mine[figure]) / float(theirs[figure]), 2) if theirs[figure] else 0.0


def samples(lab: LabRuns, lines: int, writes: str, runs: int) -> list[dict[str, Any]]:
    """Both, run by run, in turns: what a machine does meanwhile shall not favour one."""
    step, nodes = WRITES[writes], len(lab.lab.nodes)
    pairs = [(srun_l(lab, lines, step), ours(lab, lines, step)) for _ in range(runs)]
    idle = median([theirs.idle for theirs, _ in pairs]), median([mine.idle for _, mine in pairs])
    found = []
    for pair in pairs:
        theirs, mine = (
            {**figures(part.full, nothing, lines * nodes), "broken_lines": part.broken}
            for part, nothing in zip(pair, idle, strict=True)
        )
        rates = {
            "times_srun_l": times(mine, theirs, "lines_per_login_cpu_s"),
            "stream_times_srun_l": times(mine, theirs, "stream_lines_per_login_cpu_s"),
        }
        about = {"nodes": nodes, "lines": lines * nodes, "writes": writes}
        found.append({**about, **mine, **rates, "peers": {"srun_l": theirs}})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--lines", type=int, default=100_000, help="lines of each rank")
    parser.add_argument("--writes", choices=sorted(WRITES), default="lines", help="how the workload writes")
    parser.add_argument("--lab", default="", help="a lab that is up; one is made otherwise")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with lab_runs(options.lab, options.nodes) as lab:
        lab.phalanx("true")  # caches are warm
        found = samples(lab, options.lines, options.writes, options.runs)
    show(document(found), options.json)


if __name__ == "__main__":
    main()
