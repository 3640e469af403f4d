"""How long until every node's engine has an image, over links of a known rate, beside four other ways.

The image (8 layers of 32 MiB that do not compress) is on the login node as a docker archive; nothing of it is
on any node before each measurement. ``floor_s``: its size through one link, which no way can beat.
``wall_s``: until every engine shows the image's id. ``last_byte_s``: until the last node had received its
bytes, by the counters of the cables. ``source_bytes``: what the login node sent. ``cpu_s_per_gb``: CPU
seconds of login and nodes, engines included, for each GB brought to a node. ``times_faster``: a peer's wall
by ours.

``peers`` are described in image_peers.py; --scaling, --live, --changed, --slow and --kill in image_ours.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import image_ours
from benchmarks.image_lab import MIB, NODE_CACHE, ImageLab, make_image
from benchmarks.image_peers import PEERS
from benchmarks.lab_runs import lab_runs
from benchmarks.report import document, show

OURS = "phalanx"
#: What --only takes besides single names.
GROUPS = {"peers": tuple(PEERS), "ours": (OURS,)}


def measure(lab: ImageLab, only: Sequence[str]) -> dict[str, Any]:
    """Each way once, one after another.

    One before them is not counted: the first image of an engine costs it half as much CPU again, and whoever
    came first would pay for all.
    """
    size = lab.image.size
    lab.forget()
    PEERS["crude_chain"](lab)
    found: dict[str, Any] = {
        "nodes": len(lab.nodes),
        "rate": lab.runs.lab.topology.request.rate,
        "image_bytes": size,
        "floor_s": round(lab.floor_s, 3),
    }
    if OURS in only:
        found |= image_ours.cold_figures(lab)
    found["peers"] = peers = {}
    for name in (name for name in PEERS if name in only):
        lab.forget()
        figures = PEERS[name](lab).figures(size)
        peers[name] = {**figures, **image_ours.against(lab, figures)}
    if OURS in only:
        found["times_faster"] = {name: round(p["wall_s"] / found["wall_s"], 2) for name, p in peers.items()}
    lab.forget()
    return found


def more(lab: ImageLab, options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for beyond that, once."""
    found = {}
    if options.scaling:
        found["scaling"] = image_ours.scaling(lab)
    if options.live:
        found["live"] = image_ours.live(lab, options.layers)
    if options.changed:
        found["changed"] = image_ours.changed(lab, options.layers)
    if options.slow:
        found["slow"] = image_ours.slow(lab)
    if options.kill:
        found["kill"] = image_ours.kill(lab)
    lab.forget()
    return found


def chosen(only: Sequence[str]) -> tuple[str, ...]:
    """The ways that were named, each or as a group; all when none was."""
    return tuple(way for name in only for way in GROUPS.get(name, (name,))) or (OURS, *PEERS)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--rate", default="200mbit", help="of every link, both directions")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--layer-mib", type=int, default=32, help="size of each layer")
    parser.add_argument("--only", choices=[*GROUPS, *PEERS], nargs="+", default=[], help="no others")
    parser.add_argument("--scaling", action="store_true", help="ours at 2, 4 and 8 nodes too")
    parser.add_argument("--live", action="store_true", help="ours to the nodes of a run that goes on too")
    parser.add_argument("--changed", action="store_true", help="ours with one layer or nothing changed too")
    parser.add_argument("--slow", action="store_true", help="ours with a link at a tenth of the rate too")
    parser.add_argument("--kill", action="store_true", help="ours with a node cut or killed too")
    parser.add_argument("--lab", default="", help="a lab that is up; its engines are emptied")
    parser.add_argument("--runs", type=int, default=1, help="of the ways; the rest is done once")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main() -> None:
    options = parser().parse_args()
    only = chosen(options.only)
    with lab_runs(options.lab, options.nodes, docker=True, rate=options.rate) as runs:
        runs.more_env = {"PHALANX_CACHE_DIR": NODE_CACHE}
        image = make_image(runs.folder / "image.tar", options.layers, options.layer_mib * MIB)
        lab = ImageLab(runs, image)
        if OURS in only:
            runs.phalanx("true")  # caches of the login node are warm: the agent file is made
        found = document([measure(lab, only) for _ in range(options.runs)])
        show({**found, **more(lab, options)}, options.json)


if __name__ == "__main__":
    main()
