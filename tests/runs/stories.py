"""Event logs of runs that went in every way a run can go, made by hand."""

from __future__ import annotations

from collections.abc import Iterable

from phalanx.controller.fleet import events as ev

RUN = "20261122-020124-demo-7f3a"
#: 02:01:24 UTC of that day.
START = 1795312884.0


def recorded(events: Iterable[ev.Event], step_s: float = 1.0) -> list[ev.Recorded]:
    """The events one second apart, numbered from 1."""
    return [ev.Recorded(seq, START + (seq - 1) * step_s, event) for seq, event in enumerate(events, 1)]


def log_bytes(events: Iterable[ev.Event]) -> bytes:
    """The same as the content of events.jsonl."""
    return b"".join(ev.to_line(RUN, one) for one in recorded(events))


def names(count: int) -> tuple[str, ...]:
    """node1 .. nodeN."""
    return tuple(f"node{number}" for number in range(1, count + 1))


def started(nodes: int = 2, cases: tuple[str, ...] = ("demo",)) -> list[ev.Event]:
    """Up to all agents joined."""
    return [
        ev.RunStarted("demo", "local", nodes, cases, 4242),
        ev.AllocationGranted("", names(nodes), False),
        ev.SpawnStarted(("python3", "agent.pyz")),
        *(ev.AgentJoined(name, rank, f"i{rank}", "127.0.0.1:1") for rank, name in enumerate(names(nodes))),
        ev.FleetJoined(nodes, nodes, 0.6),
    ]


def running(nodes: int = 2, per_node: int = 1, case: str = "demo") -> list[ev.Event]:
    """The ranks of one case run."""
    ranks = [(name, place * per_node + i) for place, name in enumerate(names(nodes)) for i in range(per_node)]
    return [
        ev.CaseStarted(case, names(nodes), nodes * per_node),
        *(ev.CaseOpenedOn(case, name, "") for name in names(nodes)),
        ev.StepBegun(case, "main", ("./train.sh",)),
        *(ev.RankStarted(case, "main", name, rank) for name, rank in ranks),
    ]


def exits(nodes: int = 2, per_node: int = 1, case: str = "demo") -> list[ev.Event]:
    """All ranks end well."""
    return [
        ev.RankExited(case, "main", name, place * per_node + i, 0, "exited", 6.2)
        for place, name in enumerate(names(nodes))
        for i in range(per_node)
    ]


def success(nodes: int = 2, per_node: int = 1) -> list[ev.Event]:
    """A run in which nothing went wrong."""
    return [
        *started(nodes),
        *running(nodes, per_node),
        *exits(nodes, per_node),
        *(
            ev.FileCollected("demo", name, "perf.csv", 120, "ab", f"results/{name}/perf.csv")
            for name in names(nodes)
        ),
        *(ev.CaseCollectedOn("demo", name, 1) for name in names(nodes)),
        ev.CaseFinished("demo", "SUCCESS", "", ({"model": "demo", "performance": "12"},)),
        ev.RunEnding("all cases are over"),
        *(ev.AgentLeft(name) for name in names(nodes)),
        ev.RunFinished("succeeded", 0, ""),
    ]


def first_failure(nodes: int = 8, per_node: int = 2) -> list[ev.Event]:
    """Rank 3 exits 7, one follows by itself, all others are stopped."""
    others = [
        (name, place * per_node + i)
        for place, name in enumerate(names(nodes))
        for i in range(per_node)
        if place * per_node + i not in (3, 4)
    ]
    return [
        *started(nodes),
        *running(nodes, per_node),
        ev.RankExited("demo", "main", "node2", 3, 7, "exited", 4.0),
        ev.RankExited("demo", "main", "node3", 4, 1, "exited", 4.1),
        *(ev.RankExited("demo", "main", name, rank, 143, "stopped", 4.5) for name, rank in others),
        ev.CaseFinished("demo", "FAILURE", "rank 3 on node2, step main: exit status 7", ({"model": "demo"},)),
        ev.RunEnding("rank 3 on node2 failed"),
        ev.RunFinished("failed", 3, "rank 3 on node2, step main: exit status 7"),
    ]


def out_of_memory() -> list[ev.Event]:
    """A rank is killed by the kernel."""
    detail = "dmesg: Out of memory: Killed process 81244 (python)"
    return [
        *started(),
        *running(),
        ev.RankExited("demo", "main", "node2", 1, 137, "oom", 4.0, detail),
        ev.RankExited("demo", "main", "node1", 0, 143, "stopped", 4.5),
        ev.CaseFinished("demo", "FAILURE", "out of memory", ()),
        ev.RunFinished("failed", 3, "rank 1 on node2: out of memory"),
    ]


def out_of_time() -> list[ev.Event]:
    """Four ranks wait for each other until the deadline of the script, which the last to start never met."""
    words = "stopped at its deadline of 60 s"
    order = [("node2", 1, 143), ("node4", 3, 143), ("node1", 0, 137)]
    return [
        *started(4),
        *running(4),
        *(
            ev.RankExited("demo", "main", name, rank, status, "deadline", 60.1, words)
            for name, rank, status in order
        ),
        ev.RankExited("demo", "main", "node3", 2, 143, "stopped", 59.2),
        ev.CaseFinished("demo", "FAILURE", f"rank 1 on node2, step main: {words}", ()),
        ev.RunFinished("failed", 3, "failed: demo"),
    ]


def join_missing() -> list[ev.Event]:
    """Two of four nodes never join."""
    return [
        ev.RunStarted("demo", "slurm", 4, ("demo",), 4242),
        ev.AllocationRequested(("salloc", "--no-shell", "-N", "4")),
        ev.AllocationGranted("881240", names(4), True),
        ev.SpawnStarted(("srun", "agent")),
        ev.AgentJoined("node1", 0, "a", "10.0.0.1:9"),
        ev.AgentJoined("node2", 1, "b", "10.0.0.2:9"),
        ev.SpawnSaid("node3", "srun: error: node3: task 2: Exited with exit code 127"),
        ev.JoinTimeout(
            2,
            4,
            {
                "node3": "python3 not found in PATH of the job",
                "node4": "agent started but cannot reach 10.2.0.4:42117: Connection timed out",
            },
        ),
        ev.RunEnding("2 of 4 nodes joined"),
        ev.AllocationReleased("881240"),
        ev.RunFinished("failed", 8, "2 of 4 nodes joined"),
    ]


def cancelled() -> list[ev.Event]:
    """The user asks to stop; the ranks are stopped."""
    return [
        *started(),
        *running(),
        ev.CancelRequested(1, "alice (Ctrl-C)"),
        ev.RankExited("demo", "main", "node1", 0, 143, "stopped", 3.0),
        ev.RankExited("demo", "main", "node2", 1, 1, "exited", 3.0),
        ev.CaseFinished("demo", "CANCELLED", "cancelled by alice (Ctrl-C)", ()),
        ev.RunEnding("cancelled by alice (Ctrl-C)"),
        ev.RunFinished("cancelled", 130, "cancelled by alice (Ctrl-C)"),
    ]


def node_lost() -> list[ev.Event]:
    """A node goes silent, then is given up; its rank is lost with it."""
    return [
        *started(),
        *running(),
        ev.AgentSilent("node2", "no heartbeat for 5 s"),
        ev.AgentLost("node2", "no heartbeat for 10 s"),
        ev.RankExited("demo", "main", "node2", 1, 255, "lost", 0.0, "no heartbeat for 10 s"),
        ev.RankExited("demo", "main", "node1", 0, 143, "stopped", 9.0),
        ev.CaseFinished("demo", "FAILURE", "node2 was lost", ()),
        ev.RunEnding("node2 was lost"),
        ev.RunFinished("failed", 3, "node2 was lost: no heartbeat for 10 s"),
    ]


def image_failure() -> list[ev.Event]:
    """The image cannot be loaded on a node."""
    return [
        *started(),
        ev.ImageOnNode("node1", "bench:1", ""),
        ev.ImageOnNode("node2", "bench:1", ""),
        ev.ImageSource("engine of login", "bench:1", "sha256:5c1e00aa11bb22cc", 18_400_000_000),
        ev.ImagePlanned("chain", "", 2, 36_800_000_000, 18_400_000_000, 0, 147.3),
        ev.ImageOnNode("node1", "bench:1", "sha256:5c1e00aa11bb22cc"),
        ev.ImageOnNode("node2", "bench:1", "", "no space left on device (/var/lib/docker)"),
        ev.RunEnding("image"),
        ev.RunFinished("failed", 9, "image bench:1 could not be loaded on node2"),
    ]


def refused() -> list[ev.Event]:
    """The scheduler says no."""
    return [
        ev.RunStarted("demo", "slurm", 4, ("demo",), 4242),
        ev.AllocationRequested(("salloc", "--no-shell", "-p", "gpu")),
        ev.AllocationRefused("salloc: error: invalid partition specified: gpu"),
        ev.RunFinished("failed", 10, "salloc: error: invalid partition specified: gpu"),
    ]


def unfinished() -> list[ev.Event]:
    """The controller died while the ranks ran."""
    return [*started(), *running()]


STORIES = {
    "success": success(),
    "first_failure": first_failure(),
    "out_of_memory": out_of_memory(),
    "out_of_time": out_of_time(),
    "join_missing": join_missing(),
    "cancelled": cancelled(),
    "node_lost": node_lost(),
    "image_failure": image_failure(),
    "refused": refused(),
    "unfinished": unfinished(),
}
