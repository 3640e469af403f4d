"""A node of ``packed_links``: a relay that holds a layer, or a reader that gets it."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.agent.relay import packer
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.events import BlobComplete, Progress, PullComplete, PullEvent, PullFailed
from phalanx.agent.relay.puller import Pull
from phalanx.agent.relay.server import RelayServer
from phalanx.protocol.blob import Manifest, layer_chunk_bytes, make_manifest
from phalanx.protocol.messages import BulkSecurity, Parent, Stripe
from phalanx.protocol.packing import Packing
from phalanx.protocol.ticket import Gate, tickets

from benchmarks import worker
from benchmarks.crew import PATIENCE_S

RUN, READER = "benchmark", "reader"
#: SO_MAX_PACING_RATE of socket(7): TCP itself sends so many bytes a second, as it would on a slower link.
PACING = 47


@dataclass(slots=True)
class Never(Packing):
    """Chunks go as they are."""

    def wants(self, length: int) -> bool:
        return False


@dataclass(slots=True)
class Always(Packing):
    """Whatever comes is packed."""

    def wants(self, length: int) -> bool:
        return True

    def packed(self, length: int, left: int, took_s: float) -> None:
        self.on = True


WAYS: dict[str, type[Packing]] = {"rule": Packing, "never": Never, "always": Always}
_state: dict[str, Any] = {}


def manifest_of(path: Path) -> Manifest:
    """In the chunks that an image of one such layer has."""
    chunk = layer_chunk_bytes(path.stat().st_size)
    with path.open("rb") as file:
        return make_manifest(iter(lambda: file.read(chunk), b""), chunk)


def hold(request: dict[str, Any]) -> dict[str, Any]:
    """Serve a file as a layer over a link of ``rate`` bytes a second, the chunks in one of the WAYS."""
    packer.Packing = WAYS[request["way"]]  # type: ignore[misc]
    path, manifest = Path(request["path"]), manifest_of(Path(request["path"]))
    spool = BlobCache(Path(request["cache"]), 1 << 40, reserve_bytes=0).open(manifest)
    if spool.claim():
        with path.open("rb") as file:
            for index in range(len(manifest.digests)):
                spool.keep(index, file.read(manifest.chunk_bytes))
        spool.finish(trusted=True)
        spool.settle()
    gate, pem = Gate(bytes.fromhex(request["key"]), RUN), request["pem"].encode()
    relay = RelayServer(gate, BulkSecurity.TLS, pem, bind="127.0.0.1")
    port = relay.start()
    if relay._socket is None:
        raise RuntimeError("the relay does not listen")
    relay._socket.setsockopt(socket.SOL_SOCKET, PACING, request["rate"])  # what it accepts inherits that
    relay.serve(spool)
    _state["relay"] = relay
    return {"port": port, "size": manifest.size}


def stop(_: dict[str, Any]) -> dict[str, Any]:
    """Serve no more."""
    _state.pop("relay").stop()
    return {}


def get(request: dict[str, Any]) -> dict[str, Any]:
    """Get the layer into an empty cache: the seconds and CPU seconds of that, and the bytes that came."""
    manifest = manifest_of(Path(request["path"]))
    over, told = threading.Event(), list[PullEvent]()

    def tell(event: PullEvent) -> None:
        told.append(event)
        if isinstance(event, PullComplete | PullFailed):
            over.set()

    papers = tickets(bytes.fromhex(request["key"]), RUN, READER, itertools.count(1), 1)
    parent = Parent("source", "127.0.0.1", request["port"], bytes.fromhex(request["pin"]), papers)
    cache = BlobCache(Path(request["cache"]), 1 << 40, reserve_bytes=0)
    pull = Pull(cache, 1, run_id=RUN, node=READER, tell=tell, trusted=True)
    began, used = time.monotonic(), time.process_time()
    pull.add(manifest)
    pull.start([Stripe((parent,))])
    if not over.wait(PATIENCE_S) or not any(isinstance(event, PullComplete) for event in told):
        raise RuntimeError(f"the layer did not come: {told[-1:]}")
    took, used = time.monotonic() - began, time.process_time() - used
    pull.close()
    (path,) = (event.path for event in told if isinstance(event, BlobComplete))
    if manifest_of(path) != manifest:
        raise RuntimeError("another layer came")
    shutil.rmtree(request["cache"])
    *_, last = (event for event in told if isinstance(event, Progress))
    return {"s": took, "cpu_s": used, "read": last.read}


def _apart(work: Any) -> worker.Handler:
    async def handler(request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await asyncio.to_thread(work, request)
        return answer

    return handler


if __name__ == "__main__":
    worker.serve({one.__name__: _apart(one) for one in (hold, stop, get)})
