"""Docker archives (what `docker load` reads) written without an engine.

The form is the image specification v1.2 of Docker: `manifest.json` names a config and the layers in order;
the config lists the sha256 of each uncompressed layer; the image id is the sha256 of the config. Times are
fixed, so that equal content gives an equal id on every machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError

EPOCH = "1970-01-01T00:00:00Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def tiny_image(
    path: Path,
    *,
    name: str,
    layers: Sequence[Mapping[str, bytes]],
    base: Path | None = None,
    cmd: Sequence[str] = (),
) -> str:
    """Write an archive of an image whose layers hold the given files (path in the image -> content); its id.

    With `base`, an archive such as `base_image()`, the layers lie on top of that image's, and it can be run.
    Without, it can be loaded, inspected and removed, but has nothing to run.
    """
    made = [_layer(files) for files in layers]
    with tarfile.open(path, "w") as out:
        below, config = _copy_base(base, out) if base is not None else ([], {"Env": [PATH]})
        for content in made:
            _add(out, f"{_digest(content)}/layer.tar", content)
        if cmd:
            config = {**config, "Cmd": list(cmd)}
        return _finish(out, name, [*below, *map(_digest, made)], config)


def layer_image(path: Path, *, name: str, layer: Path, cmd: Sequence[str], base: Path | None = None) -> str:
    """Write an archive of an image with one layer, an uncompressed tar, on a base or on none; its id."""
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    with tarfile.open(path, "w") as out:
        below, config = _copy_base(base, out) if base is not None else ([], {"Env": [PATH]})
        entry = tarfile.TarInfo(f"{digest}/layer.tar")
        entry.size = layer.stat().st_size
        with layer.open("rb") as content:
            out.addfile(entry, content)
        return _finish(out, name, [*below, digest], {**config, "Cmd": list(cmd)})


def random_layer(size: int, seed: int, file: str = "blob") -> dict[str, bytes]:
    """A layer with one file of `size` bytes that do not compress; the same for the same seed."""
    return {file: random.Random(seed).randbytes(size)}


def _layer(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(files):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(files[path]), 0o755
            tar.addfile(entry, io.BytesIO(files[path]))
    return out.getvalue()


def _copy_base(base: Path, out: tarfile.TarFile) -> tuple[list[str], dict[str, Any]]:
    """Copy the layers of an archive that this module wrote; their digests in order, and the config to go on
    with."""
    with tarfile.open(base) as source:
        manifest = json.loads(_read(source, "manifest.json"))[0]
        config = json.loads(_read(source, manifest["Config"]))
        for member in manifest["Layers"]:
            entry = source.getmember(member)
            out.addfile(entry, source.extractfile(entry))
    return [digest.removeprefix("sha256:") for digest in config["rootfs"]["diff_ids"]], config["config"]


def _read(source: tarfile.TarFile, member: str) -> bytes:
    handle = source.extractfile(member)
    if handle is None:
        raise LabError(f"cannot read {member} of {source.name!r}: not a file; write the archive anew")
    return handle.read()


def _finish(out: tarfile.TarFile, name: str, layers: Sequence[str], config: Mapping[str, Any]) -> str:
    document = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": EPOCH,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
        "history": [{"created": EPOCH, "created_by": "phalanx lab"} for _ in layers],
    }
    content = json.dumps(document, sort_keys=True).encode()
    image = _digest(content)
    members = [f"{digest}/layer.tar" for digest in layers]
    manifest = [{"Config": f"{image}.json", "RepoTags": [name], "Layers": members}]
    _add(out, f"{image}.json", content)
    _add(out, "manifest.json", json.dumps(manifest).encode())
    return f"sha256:{image}"


def _add(out: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o644
    out.addfile(entry, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
