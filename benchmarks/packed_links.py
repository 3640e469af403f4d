"""A layer from one relay to a reader over links of several speeds: what zstd brings there, and what it costs.

Relay and reader are a process each, TLS between them; the link is TCP's own pacing on loopback. Peers, in the
same run: chunks that are never packed, and chunks that are always packed. ``python``: the .py files of the
standard library in a tar, over and over; ``random``: bytes that nothing makes smaller. For each link and
layer: ``mb_per_s`` of the layer, ``sent_part`` of its bytes that went over the link, CPU seconds of both
processes for each GB of the layer. ``of_best``: the speed of the rule beside the better of the two peers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from phalanx.controller.fleet.certificate import KeyPair, make_key_pair
from phalanx.protocol.zstd import SONAME, library

from benchmarks.crew import Worker
from benchmarks.report import document, show

#: Links in Mbit/s, each with the megabytes of a layer that keep it busy for some seconds.
LINKS = {100: 128, 1000: 512, 10000: 1024}
WAYS = ("rule", "never", "always")
MODULE = "benchmarks.packed_node"


def python_files(size: int) -> Iterator[bytes]:
    """Bytes of a tar of Python files."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
                tar.add(path, path.name)
        file.seek(0)
        once = file.read()
    while size > 0:
        yield once[:size]
        size -= len(once)


def random_bytes(size: int) -> Iterator[bytes]:
    """Bytes that nothing makes smaller."""
    for _ in range(size >> 20):
        yield os.urandom(1 << 20)


LAYERS = {"python": python_files, "random": random_bytes}


async def cell(folder: Path, path: Path, mbit: int, way: str, pair: KeyPair) -> dict[str, float]:
    """One layer over one link in one way."""
    source, reader = await Worker.start(MODULE), await Worker.start(MODULE)
    try:
        said = {"path": str(path), "key": secrets.token_hex(32), "way": way, "rate": mbit * 1_000_000 // 8}
        pem = pair.pem.decode()
        at = await source.ask({"do": "hold", "cache": str(folder / "source"), "pem": pem, **said})
        before = source.cpu_s()
        pin = pair.fingerprint.hex()
        got = await reader.ask({"do": "get", "cache": str(folder / "reader"), "pin": pin, **at, **said})
        used = source.cpu_s() - before + got["cpu_s"]
        await source.ask({"do": "stop"})
    finally:
        await source.end()
        await reader.end()
    size = at["size"]
    return {
        "mb_per_s": round(size / got["s"] / 1e6, 1),
        "sent_part": round(got["read"] / size, 3),
        "cpu_s_per_gb": round(used / size * 1e9, 2),
    }


async def measure(folder: Path, links: dict[int, int]) -> dict[str, Any]:
    """Every link with every layer, all ways of one right after another."""
    pair = make_key_pair("benchmark")
    found: dict[str, Any] = {}
    for mbit, megabytes in links.items():
        for layer, content in LAYERS.items():
            path = folder / layer
            with path.open("wb") as file:
                file.writelines(content(megabytes << 20))
            ways = {way: await cell(folder, path, mbit, way, pair) for way in WAYS}
            best = max(ways["never"]["mb_per_s"], ways["always"]["mb_per_s"])
            found.setdefault(f"{mbit}_mbit", {})[layer] = {
                **ways["rule"],
                "of_best": round(ways["rule"]["mb_per_s"] / best, 3),
                "peers": {way: ways[way] for way in ("never", "always")},
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, help="of each layer, instead of what keeps its link busy")
    parser.add_argument("--links", type=int, nargs="+", choices=LINKS, default=list(LINKS), help="in Mbit/s")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if library() is None:
        parser.error(f"cannot measure what zstd brings: this machine has no {SONAME}; install libzstd1")
    links = {mbit: options.megabytes or LINKS[mbit] for mbit in options.links}
    samples = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="phalanx-links-") as folder:
            samples.append(asyncio.run(measure(Path(folder), links)))
    show(document(samples), options.json)


if __name__ == "__main__":
    main()
