"""``phalanx image sync`` on the lab: cold, by count of nodes, with little or nothing changed, with a slow
node, and with nodes cut or killed on the way.

Each function brings about its own starting point and reports what it found; none depends on another's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from benchmarks.crew import BenchmarkError
from benchmarks.image_lab import REFERENCE, Delivery, Image, ImageLab, make_image
from benchmarks.lab_runs import PATIENCE_S, Cost, events, moment
from benchmarks.link_watch import LinkWatch
from benchmarks.live_run import PHALANX, LiveRun, live_run
from tests.lab.topology import parse_rate

#: Parts of the image that the victim has received when it is cut or killed.
POINTS = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)


def sync_argv(lab: ImageLab, nodes: Sequence[str], image: Image) -> list[str]:
    """The command that a user types."""
    place = ["--target", "slurm", "-N", str(len(nodes))]
    if len(nodes) < len(lab.nodes):
        place += ["-w", ",".join(nodes)]
    archive = ["--image-archive", str(image.archive)]
    return [PHALANX, "image", "sync", REFERENCE, *archive, *place, "--progress", "quiet"]


def _synced(lab: ImageLab, image: Image, nodes: Sequence[str] = (), *, whole: bool) -> Delivery:
    chosen = nodes or lab.nodes
    return lab.deliver(sync_argv(lab, chosen, image), nodes=chosen, image=image, whole=whole)


def cold(lab: ImageLab, nodes: Sequence[str] = ()) -> Delivery:
    """No node has anything of it."""
    lab.forget()
    return _synced(lab, lab.image, nodes, whole=True)


def cold_figures(lab: ImageLab, nodes: Sequence[str] = ()) -> dict[str, Any]:
    """What ``cold`` took. ``planned_s``: until the way was planned, with nodes allocated, agents started and
    engines opened; ``travel_x_floor``: the time from there to the last byte as a multiple of the floor."""
    lab.forget()
    began = time.time()
    figures = _synced(lab, lab.image, nodes, whole=True).figures(lab.image.size)
    planned = moment(events(max((lab.runs.folder / "phalanx-runs").glob("[0-9]*"))), "image.planned") - began
    travel = figures["last_byte_s"] - planned
    return {
        **figures,
        **against(lab, figures),
        "planned_s": round(planned, 3),
        "travel_x_floor": round(travel / lab.floor_s, 3) if lab.floor_s else 0.0,
    }


def scaling(lab: ImageLab, counts: Sequence[int] = (2, 4, 8)) -> dict[str, Any]:
    """Cold, on the first nodes of the lab; by count."""
    fitting = [count for count in counts if count <= len(lab.nodes)]
    return {str(count): cold_figures(lab, lab.nodes[:count]) for count in fitting}


def against(lab: ImageLab, figures: dict[str, Any]) -> dict[str, float]:
    """The last byte as a multiple of the floor, and what the source sent as a multiple of the image."""
    floor = lab.floor_s
    return {
        "last_byte_x_floor": round(figures["last_byte_s"] / floor, 3) if floor else 0.0,
        "source_x_image": round(figures["source_bytes"] / lab.image.size, 3),
    }


def changed(lab: ImageLab, layers: int) -> dict[str, Any]:
    """Nothing, the last layer, one in the middle changed, on nodes that have the image. ``nothing_at_all`` is
    a run of ``true`` on the same nodes: what agents cost without any image. Bytes are of the node that
    received most, ``x_layer`` by the size of one layer."""
    cold(lab)
    with LinkWatch(lab.runs.lab) as links:
        cost, _ = lab.runs.phalanx("true", options=["--progress", "quiet"])
    bare = max(map(links.received, lab.nodes))
    found: dict[str, Any] = {"nothing_at_all": {"wall_s": round(cost.wall_s, 3), "node_bytes": bare}}
    found["nothing"] = _little(_synced(lab, lab.image, whole=False), lab.image, bare)
    for word, place in (("last_layer", layers), ("middle_layer", layers // 2)):
        cold(lab)
        image = make_image(lab.runs.folder / f"{word}.tar", layers, lab.image.layer_bytes, changed=place)
        found[word] = _little(_synced(lab, image, whole=False), image, bare)
        image.archive.unlink()
    return found


def live(lab: ImageLab, layers: int) -> dict[str, Any]:
    """To the nodes of a run that goes on: cold, then with nothing and with the last layer changed.

    No agent has to be started, so this is the way of the image alone, from the start of the command. The
    agents get their engine's client with an image that is asked for before.
    """
    lab.forget()
    small = make_image(lab.runs.folder / "small.tar", 1, 1024)
    with live_run(lab.runs) as run:
        _brought(lab, run, small, whole=False)
        lab.forget()
        delivery = _brought(lab, run, lab.image, whole=True)
        figures = delivery.figures(lab.image.size)
        found: dict[str, Any] = {**figures, **against(lab, figures)}
        found["nothing"] = _little(_brought(lab, run, lab.image, whole=False), lab.image, 0)
        image = make_image(lab.runs.folder / "last.tar", layers, lab.image.layer_bytes, changed=layers)
        found["last_layer"] = _little(_brought(lab, run, image, whole=False), image, 0)
    small.archive.unlink()
    image.archive.unlink()
    return found


def _brought(lab: ImageLab, run: LiveRun, image: Image, *, whole: bool) -> Delivery:
    argv = [PHALANX, "image", "sync", REFERENCE, "--run", run.run_id, "--image-archive", str(image.archive)]
    return lab.deliver([*argv, "--quiet"], servers=[run], image=image, whole=whole)


def _little(delivery: Delivery, image: Image, bare: int) -> dict[str, Any]:
    most = max(delivery.received.values())
    return {
        "wall_s": round(delivery.wall_s, 3),
        "node_bytes": most,
        "beyond_a_run_bytes": max(0, most - bare),
        "x_layer": round(most / image.layer_bytes, 3),
        "source_bytes": delivery.source_bytes,
    }


def slow(lab: ImageLab) -> dict[str, Any]:
    """The link of one node limited to a tenth: when the engines of the others have the image, with and
    without. Unshaped links have no tenth: raises BenchmarkError."""
    rate = parse_rate(lab.runs.lab.topology.request.rate)
    if rate is None:
        raise BenchmarkError("cannot slow a link that has no rate; give --rate")
    victim = lab.nodes[len(lab.nodes) // 2]
    others = [node for node in lab.nodes if node != victim]
    before, _ = _watched(lab, others, victim)
    lab.runs.lab.rate(victim, f"{rate // 10_000}kbit")
    try:
        after, slow_node = _watched(lab, others, victim)
    finally:
        lab.runs.lab.rate(victim, lab.runs.lab.topology.request.rate)
    return {
        "others_s": round(before, 3),
        "others_beside_slow_s": round(after, 3),
        "others_times": round(after / before, 3),
        "slow_node_s": round(slow_node, 3),
    }


def _watched(lab: ImageLab, others: Sequence[str], victim: str) -> tuple[float, float]:
    """Seconds until the engines of the others, and that of the victim, had the image."""
    lab.forget()
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        command = _started(lab, pool, check=True)
        moments = lab.arrivals(lab.image, lab.nodes, command.done)
        command.result()
    lab.check(lab.nodes, lab.image)
    return max(moments[node] for node in others) - began, moments[victim] - began


def _started(lab: ImageLab, pool: ThreadPoolExecutor, *, check: bool) -> Future[Cost]:
    argv = sync_argv(lab, lab.nodes, lab.image)
    return pool.submit(lab.runs.timed, argv, lab.runs.folder / "output", check=check)


def kill(lab: ImageLab) -> dict[str, Any]:
    """At each of ten points a node is cut off (even points) or loses its power (odd ones). The others must
    finish, the command must not say that all went well, and when the node is back a second sync must complete
    it: raises BenchmarkError where one of that fails.

    ``others_s``: until the engines of the others had the image. ``resent_bytes``: what the others received
    beyond an undisturbed sync, ``resent_to_one_bytes`` the most of it for one node; the cables' own headers
    differ by some parts of a thousand. ``again_bytes``: what the node then received beyond what it lacked.
    """
    undisturbed = cold(lab)
    trials = {}
    for number, point in enumerate(POINTS):
        victim, fault = lab.nodes[number % len(lab.nodes)], "kill" if number % 2 else "cut"
        trials[f"{fault}_at_{point}"] = _trial(lab, victim, point, fault, undisturbed.received)
    worst = ("others_s", "resent_bytes", "resent_to_one_bytes", "again_bytes", "second_sync_s")
    return {
        "undisturbed_s": round(undisturbed.wall_s, 3),
        **{figure: max(trial[figure] for trial in trials.values()) for figure in worst},
        "trials": trials,
    }


def _trial(lab: ImageLab, victim: str, point: float, fault: str, usual: dict[str, int]) -> dict[str, Any]:
    lab.forget()
    others = [node for node in lab.nodes if node != victim]
    with LinkWatch(lab.runs.lab) as links, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        command = _started(lab, pool, check=False)
        had = _hit(lab, links, command, victim, point, fault)
        moments = lab.arrivals(lab.image, others, command.done)
        cost = command.result()
    lab.check(others, lab.image)
    if cost.status == 0 and not lab.holds(victim, lab.image):
        raise BenchmarkError(f"the sync said that all went well although {victim} is without the image")
    _back(lab, victim, fault)
    second = _synced(lab, lab.image, whole=False)
    beyond = [links.received(node) - usual[node] for node in others]
    return {
        "victim": victim,
        "others_s": round(max(moments.values()) - began, 3),
        "wall_s": round(cost.wall_s, 3),
        "exit_status": cost.status,
        "resent_bytes": max(0, sum(beyond)),
        "resent_to_one_bytes": max(0, *beyond),
        "lacked_bytes": max(0, lab.image.size - had),
        "again_bytes": max(0, second.received[victim] - max(0, lab.image.size - had)),
        "second_sync_s": round(second.wall_s, 3),
    }


def _hit(
    lab: ImageLab, links: LinkWatch, command: Future[Cost], victim: str, point: float, fault: str
) -> int:
    """Wait for the point, then cut or kill; the bytes that the victim had received."""
    deadline = time.monotonic() + PATIENCE_S
    while links.received(victim) < point * lab.image.size:
        if command.done() or time.monotonic() > deadline:
            raise BenchmarkError(f"nothing to cut: {victim} never had {point:.0%} of the image")
        time.sleep(0.01)
    had = links.received(victim)
    (lab.runs.lab.cut if fault == "cut" else lab.runs.lab.kill)(victim)
    return had


def _back(lab: ImageLab, victim: str, fault: str) -> None:
    """The node is whole again, in an allocation that has lost none."""
    if fault == "cut":
        lab.runs.lab.join(victim)
    else:
        lab.runs.lab.write_off(victim)
        lab.runs.lab.boot(victim)
    lab.runs.renew()
