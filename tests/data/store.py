"""A real S3 server in this process, and what tests do to it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store
from phalanx.agent.data.case import as_started
from phalanx.protocol.messages import OWN_PROGRAM, StepStart

USER, PASSWORD = "canary-user-7a1c", "canary-password-93fe"


@dataclass(slots=True)
class Store:
    """A server at ``endpoint``."""

    endpoint: str
    buckets: list[str] = field(default_factory=list)

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{secrets.token_hex(4)}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=10)
        self.buckets.append(name)
        return name

    def put(self, bucket: str, objects: Mapping[str, bytes], **options: Any) -> None:
        """Put objects; ``chunk_size`` in options makes them of several parts."""
        store = S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=USER,
            secret_access_key=PASSWORD,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        for key, content in objects.items():
            obstore.put(store, key, content, **options)

    def put_as_is(self, bucket: str, key: str, content: bytes) -> None:
        """Put an object under a key that no client would write."""
        url = f"{self.endpoint}/{bucket}/{key}"
        urllib.request.urlopen(urllib.request.Request(url, content, method="PUT"), timeout=10)


@contextmanager
def served() -> Iterator[Store]:
    """A server on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Store(f"http://{host}:{port}")
    finally:
        server.stop()


@dataclass(slots=True)
class Node:
    """A node's folders, and the agent's own program as it is started there."""

    place: Path
    kind: str = "cache"
    env: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the data set is."""
        folder = self.place / "node" / "content"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """What the agent tells the program."""
        results = self.place / "results"
        results.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place),
            "PHALANX_NODE": "n1",
            "PHALANX_DATA": json.dumps([[name, self.kind, str(self.folder)]]),
            "PHALANX_DATA_CACHE": str(self.place / "cache"),
            "PHALANX_DATA_WHY": str(self.place / "why"),
            "PHALANX_DATA_RANK": "0",
            "PHALANX_DATA_NODES": "1",
            "PHALANX_RESULTS": str(results),
            "PHALANX_SOCKET": "",
            "MAD_MINIO_USERNAME": USER,
            "MAD_MINIO_PASSWORD": PASSWORD,
            **self.env,
            **more,
        }

    def start(self, *sources: dict[str, Any], name: str = "d", mirror: str = "") -> subprocess.Popen[str]:
        """Start the program."""
        request = json.dumps({"name": name, "number": 0, "mirror": mirror, "sources": sources})
        step = as_started(StepStart("c", "data", (*OWN_PROGRAM, request), {}, {}, (), 0.0, where="host"))
        return subprocess.Popen(
            step.argv,
            env=self.environment(name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *sources: dict[str, Any], status: int = 0, **given: Any) -> str:
        """Run the program to its end, which must be with this status; what it said, without credentials."""
        process = self.start(*sources, **given)
        out, err = process.communicate(timeout=120)
        assert process.returncode == status, (process.returncode, out, err)
        for secret in (USER, PASSWORD):
            assert secret not in out + err + " ".join(map(str, process.args))
        return out + err

    def files(self) -> dict[str, bytes]:
        """All files of the data set by path."""
        root = self.folder
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def record(self) -> dict[str, str]:
        """What a row is told."""
        found: dict[str, str] = json.loads((self.place / "results" / ".phalanx" / "data.json").read_text())
        return found


def minio(store: Store, bucket: str, key: str = "", **more: Any) -> dict[str, Any]:
    """A source as the controller writes it."""
    return {
        "provider": "minio",
        "path": f"s3://{bucket}/{key}",
        "bucket": bucket,
        "key": key,
        "endpoint": store.endpoint,
        "region": "us-east-2",
        "user": "MAD_MINIO_USERNAME",
        "password": "MAD_MINIO_PASSWORD",
        **more,
    }
