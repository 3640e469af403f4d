"""A lab with engines and shaped links, one image, and how its way onto every node is measured.

The image is the same on every machine: layers of random bytes from a seed, written as a docker archive
without an engine. Before a method is measured no engine has it, nor has any cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.crew import BenchmarkError
from benchmarks.lab_runs import LabRuns
from benchmarks.link_watch import LinkWatch
from benchmarks.live_run import LiveRun
from benchmarks.servers import Server
from tests.lab.archive import random_layer, tiny_image
from tests.lab.errors import LabError
from tests.lab.topology import parse_rate

REFERENCE = "phalanx-bench/image:1"
#: On each node, whose /var is its own: where peers put the tar, and the cache of phalanx.
NODE_TAR = "/var/tmp/phalanx-bench.tar"
NODE_CACHE = "/var/tmp/phalanx-bench-cache"
MIB = 1024 * 1024
#: What a node's engine is asked when nothing shall be left on it. Fails while an image is left.
FORGET = f"""
docker ps -aq | xargs -r docker rm -f >/dev/null
docker images -aq | sort -u | xargs -r docker rmi -f >/dev/null
rm -rf {NODE_TAR} {NODE_CACHE}/blobs
left=$(docker images -aq)
test -z "$left"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A docker archive; ``id`` is the digest of its config, ``layer_bytes`` the content of one layer."""

    archive: Path
    id: str
    layer_bytes: int

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return self.archive.stat().st_size


def make_image(archive: Path, layers: int, layer_bytes: int, changed: int = 0) -> Image:
    """Write an image; with ``changed`` (1 is the first layer) the same with another layer in that place."""
    seeds = [place + 1000 * (place == changed) for place in range(1, layers + 1)]
    files = [random_layer(layer_bytes, seed, f"layer{place}") for place, seed in enumerate(seeds)]
    return Image(archive, tiny_image(archive, name=REFERENCE, layers=files), layer_bytes)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One way onto the nodes. Bytes as the cables counted them, headers included; times in seconds from the
    start of the command: until every engine had the image, and of the last byte of each node."""

    wall_s: float
    cpu_s: float
    source_bytes: int
    received: dict[str, int]
    last_byte_s: dict[str, float]

    def figures(self, size: int) -> dict[str, Any]:
        """As reported, for an image of ``size`` bytes."""
        return {
            "wall_s": round(self.wall_s, 3),
            "last_byte_s": round(max(self.last_byte_s.values()), 3),
            "source_bytes": self.source_bytes,
            "cpu_s_per_gb": round(self.cpu_s / (size * len(self.received) / 1e9), 3),
        }


@dataclass(slots=True)
class ImageLab:
    """All nodes of a lab in one allocation, and the image that is to get there."""

    runs: LabRuns
    image: Image

    @property
    def nodes(self) -> list[str]:
        return self.runs.lab.nodes

    @property
    def floor_s(self) -> float:
        """What the size takes through one link at its nominal rate; 0 when links are not shaped."""
        rate = parse_rate(self.runs.lab.topology.request.rate)
        return 0.0 if rate is None else self.image.size * 8 / rate

    def forget(self) -> None:
        """No engine, folder or cache of a node holds any of it. Raises BenchmarkError where that fails.

        The engine's client, which a node gets once for all images, stays.
        """

        def clear(node: str) -> None:
            done = self.runs.lab.exec(node, ["sh", "-c", FORGET])
            if done.returncode:
                raise BenchmarkError(f"the engine of {node} is not empty: {done.stderr.strip()[-400:]}")

        self._on_each(clear, self.nodes)
        os.sync()  # what one method wrote shall not be written out at the cost of the next

    def holds(self, node: str, image: Image) -> bool:
        """Whether the node's engine has exactly this image."""
        try:
            return self.runs.lab.image_id(node, image.id) == image.id
        except LabError:
            return False

    def check(self, nodes: Sequence[str], image: Image) -> None:
        """Raises BenchmarkError unless every engine has exactly this image."""
        without = [node for node in nodes if not self.holds(node, image)]
        if without:
            raise BenchmarkError(f"nodes without the image {image.id}: {', '.join(without)}")

    def deliver(
        self,
        argv: Sequence[str],
        *,
        servers: Sequence[Server | LiveRun] = (),
        nodes: Sequence[str] = (),
        image: Image | None = None,
        whole: bool = True,
    ) -> Delivery:
        """Run a command that brings the image to ``nodes`` (all), and see that it has.

        ``whole`` is for nodes that had none of it: each must then have received all of it. The CPU of
        ``servers`` of the login node (or the controller of a live run) counts as well.
        """
        nodes, image = nodes or self.nodes, image or self.image
        served = sum(server.cpu_s for server in servers)
        with LinkWatch(self.runs.lab) as links:
            cost = self.runs.timed(argv, self.runs.folder / "output", then=lambda: self.check(nodes, image))
        if whole:
            links.check_whole(nodes, image.size)
        served = sum(server.cpu_s for server in servers) - served
        return Delivery(
            wall_s=cost.wall_s,
            cpu_s=cost.login_cpu_s + cost.nodes_cpu_s + served,
            source_bytes=links.source_sent,
            received={node: links.received(node) for node in nodes},
            last_byte_s={node: links.last_byte_s(node) for node in nodes},
        )

    def arrivals(self, image: Image, nodes: Sequence[str], over: Callable[[], bool]) -> dict[str, float]:
        """When engines were first seen to have the image, until all have or it is ``over``."""
        moments: dict[str, float] = {}
        while len(moments) < len(nodes):
            last_look = over()
            for node in nodes:
                if node not in moments and self.holds(node, image):
                    moments[node] = time.monotonic()
            if last_look:
                break
            time.sleep(0.2)
        return moments

    @staticmethod
    def _on_each(work: Callable[[str], None], nodes: Sequence[str]) -> None:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(work, nodes))
