"""Small docker-archives made by hand: images with one shell each, so that no registry has to be asked."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

APPLETS = [
    "sleep",
    "cat",
    "mv",
    "rm",
    "ls",
    "ps",
    "id",
    "env",
    "grep",
    "chown",
    "chmod",
    "mkdir",
    "head",
    "tail",
    "dd",
    "yes",
    "true",
    "false",
    "seq",
    "kill",
    "mkfifo",
    "printf",
    "test",
    "setsid",
    "touch",
    "pwd",
    "wc",
    "nproc",
]


def busybox() -> Path | None:
    """A static busybox of this machine."""
    found = shutil.which("busybox")
    return Path(found) if found else None


def write_image(archive: Path, tag: str, *, shell: str = "busybox", filler_bytes: int = 0) -> str:
    """Write a docker-archive whose /bin/sh is ``shell`` ("" for none); the id of its image."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "tmp", "etc", "proc", "dev", "run"):
            _directory(tar, name)
        _file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234::/tmp:/bin/sh\n")
        _file(tar, "etc/group", b"root:x:0:\nworker:x:1234:\n")
        if shell:
            _shell(tar, shell)
        if filler_bytes:
            # every archive its own bytes, so that no layer of another is in the way
            _file(tar, "filler", (tag.encode() * (filler_bytes // len(tag) + 1))[:filler_bytes])
    body = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(body).hexdigest()}"]},
        }
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, mode="w") as tar:
        _file(tar, f"{digest}.json", config)
        _file(tar, "layer.tar", body)
        _file(tar, "manifest.json", json.dumps(manifest).encode())
    return f"sha256:{digest}"


def _shell(tar: tarfile.TarFile, shell: str) -> None:
    source = busybox()
    assert source is not None
    _file(tar, "bin/busybox", source.read_bytes(), 0o755)
    for name in APPLETS:
        _link(tar, f"bin/{name}", "busybox")
    if shell == "busybox":
        _link(tar, "bin/sh", "busybox")
        return
    path = Path(shutil.which(shell) or f"/bin/{shell}")
    _file(tar, "bin/sh", path.read_bytes(), 0o755)
    _link(tar, f"bin/{shell}", "sh")
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        _file(tar, library.lstrip("/"), Path(library).read_bytes(), 0o755)


def _directory(tar: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    tar.addfile(entry)


def _file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)
