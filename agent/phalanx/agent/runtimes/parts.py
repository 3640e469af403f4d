"""Whose parts of an image an engine holds: several runs of the user may bring the same one at a time.

Each shares a lock on a file while it loads. Only the last removes what is on the way, so that nobody takes a
layer away from under another.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from phalanx.agent.relay.descriptor import Descriptor, open_own
from phalanx.agent.runtimes import verify
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.protocol.image import ImageContent

#: Seconds between two looks whether another has done with removing them.
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Parts:
    """A share in the parts of an image, until ``release`` or the end of the process."""

    path: Path
    digest: bytes
    _file: Descriptor

    async def clean(self, engine: EngineClient, content: ImageContent) -> None:
        """Remove what is on the way after a failure, unless another goes on with it. Raises ImageError."""
        if self._alone():
            await verify.clean(engine, content)

    def release(self) -> None:
        """Have no share in them any more; with the last one the file goes."""
        if self._alone():
            self.path.unlink(missing_ok=True)
        self._file.unlock()

    def _alone(self) -> bool:
        """Whether nobody else loads the image, nor begins to before ``release``."""
        return self._file.lock(fcntl.LOCK_EX) and self._file.is_at(self.path)


async def share(folder: Path, digest: bytes) -> Parts:
    """Take a share in the parts of an image, by the digest of its configuration; waits while another removes
    them. Raises OSError."""
    path = folder / f"{digest.hex()}.parts"
    while True:
        file = open_own(path, os.O_RDONLY | os.O_CREAT)
        if file.lock(fcntl.LOCK_SH) and file.is_at(path):
            return Parts(path, digest, file)
        await asyncio.sleep(LOOK_S)
