"""Images of several layers made by hand, with every byte known: no registry or engine is asked for one."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.agent.runtimes import layers
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.protocol.image import ImageContent, digest_text
from phalanx.protocol.image_archive import archive
from phalanx.protocol.messages import Layer

from tests.runtimes import archives


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A layer: files (executable) and symlinks."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            file.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            file.addfile(member)
    return made.getvalue()


def noise(seed: str, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return hashlib.shake_256(seed.encode()).digest(size)


def base(seed: str) -> bytes:
    """A layer with a shell, unlike that of any other seed."""
    busybox = archives.busybox()
    assert busybox is not None
    names = ("sh", "cat", "true", "md5sum", "sleep")
    return tar(
        {"bin/busybox": busybox.read_bytes(), "etc/seed": seed.encode()},
        {f"bin/{name}": "busybox" for name in names},
    )


@dataclass(frozen=True, slots=True)
class Made:
    """An image and the bytes of its layers."""

    content: ImageContent
    layers: tuple[bytes, ...]

    def files(self, folder: Path) -> list[Path]:
        """Each layer as a file."""
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{number}" for number in range(len(self.layers))]
        for path, data in zip(paths, self.layers, strict=True):
            path.write_bytes(data)
        return paths


def image(*layers: bytes, **config: Any) -> Made:
    """An image of these layers. ``config``: more of its ``config`` part (Env=[...], Cmd=[...])."""
    named = tuple(Layer(hashlib.sha256(data).digest(), len(data)) for data in layers)
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/true"], **config},
        "rootfs": {"type": "layers", "diff_ids": [digest_text(layer.diff_id) for layer in named]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(named))],
    }
    return Made(ImageContent(json.dumps(document).encode(), named), layers)


def of(seed: str, *sizes: int) -> Made:
    """A runnable image: a layer with a shell, then one with a file ``data/N`` for each size."""
    above = [
        tar({f"data/{number}": noise(f"{seed}/{number}", size)}) for number, size in enumerate(sizes, start=1)
    ]
    return image(base(seed), *above)


async def put_in(
    engine: EngineClient, content: ImageContent, reference: str, index: int, file: Path, offset: int = 0
) -> None:
    """One layer into an engine."""
    span = layers.Span(file, offset, content.layers[index].size)
    await layers.load_layers(engine, content, reference, index, [span])


def hybrid(path: Path, one: Made, name: str = "phx/made:1") -> Path:
    """The image as an archive that every engine takes."""
    data = {hashlib.sha256(layer).digest(): layer for layer in one.layers}
    with path.open("wb") as file:
        for piece in archive(one.content, name, range(len(one.layers))):
            file.write(data[piece.diff_id] if isinstance(piece, Layer) else piece)
    return path
