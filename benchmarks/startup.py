"""How long until every node has its agent, beside what srun needs for nothing at all.

All inside one allocation of the lab. ``spawn_to_joined_s``: from spawn.started to fleet.joined in the event
log. ``beyond_srun_true_s``: that, less ``srun true`` in the same allocation. ``agent_rss_mb`` and
``agent_cpu_s`` are of an agent that has joined and reported its facts, the median over the nodes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.lab_runs import LabRuns, events, lab_runs, moment
from benchmarks.report import document, show

PYTHON = "/usr/bin/python3"
#: What a rank does: reads the figures of the agent on its node, which is the oldest process of that name.
LOOK = (
    "for p in /proc/[0-9]*; do "
    "tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q 'phalanx-agent.* run' || continue; "
    "grep -q '^python' $p/comm || continue; "
    "grep VmRSS $p/status; cut -d' ' -f14-15 $p/stat; break; done"
)
#: Clock ticks of /proc/PID/stat in a second (proc(5)); the nodes are this machine.
TICKS = 100


def agents(output: str) -> tuple[float, float]:
    """Median memory (MB) and CPU (seconds) of the agents from what the ranks found."""
    lines = [line.split(": ", 1)[-1] for line in output.splitlines()]
    memory = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
    pairs = [line.split() for line in lines if line[:1].isdigit()]
    cpu = [(int(user) + int(system)) / TICKS for user, system in pairs]
    return round(statistics.median(memory), 1), round(statistics.median(cpu), 3)


def measure(lab: LabRuns) -> dict[str, Any]:
    """One run of everything."""
    srun_true = lab.srun("true").wall_s
    srun_python = lab.srun(PYTHON, "-I", "-S", "-c", "pass").wall_s
    output = lab.folder / "found"
    cost, run_dir = lab.phalanx("sh", "-c", LOOK, options=["--progress", "quiet"], output=output)
    log = events(run_dir)
    joined = moment(log, "fleet.joined") - moment(log, "spawn.started")
    rss, cpu = agents(output.read_text())
    return {
        "nodes": len(lab.lab.nodes),
        "spawn_to_joined_s": round(joined, 3),
        "beyond_srun_true_s": round(joined - srun_true, 3),
        "agent_rss_mb": rss,
        "agent_cpu_s": cpu,
        "whole_run_s": round(cost.wall_s, 3),
        "login_cpu_s": round(cost.login_cpu_s, 3),
        "nodes_cpu_s": round(cost.nodes_cpu_s, 3),
        "peers": {
            "srun_true": {"wall_s": round(srun_true, 3)},
            "srun_python": {"wall_s": round(srun_python, 3)},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--lab", default="", help="a lab that is up; one is made otherwise")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with lab_runs(options.lab, options.nodes) as lab:
        lab.phalanx("true")  # caches are warm: the agent file is made, its pages are in memory
        samples = [measure(lab) for _ in range(options.runs)]
    show(document(samples), options.json)


if __name__ == "__main__":
    main()
