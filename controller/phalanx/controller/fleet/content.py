"""What nodes get of the login node as one file: the engine's client and other libraries, workspaces."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from phalanx.protocol.messages import Message, Runtime, RuntimeOpen

from ..targets.bundle import CacheError
from ..targets.library_file import LibraryIncomplete, library_zip
from .instructions import LIBRARY, Ship
from .workspace import WorkspaceTooLarge, pack

log = logging.getLogger("phalanx.controller")

#: Why a file cannot be made.
UNMADE = (OSError, WorkspaceTooLarge, LibraryIncomplete, CacheError)


@dataclass(slots=True)
class Content:
    """Files are made in ``cache``, or below ``stage`` when they are a run's own.

    ``client``: the digest of the engine's client once that is made, by which nodes find it that have it kept.
    """

    cache: Path
    stage: Path
    client: bytes | None = None

    async def make_client(self) -> None:
        """Make the engine's client before a node asks for it. What keeps it from being made is told then."""
        try:
            made = await asyncio.to_thread(library_zip, self.cache)
        except Exception as error:  # noqa: BLE001 - nodes may have a client of their own; the run goes on
            log.info("the engine's client is not made yet: %s", error)
            return
        self.client = bytes.fromhex(made.sha256)

    def named(self, message: Message) -> Message:
        """A message that opens an engine names the client, so that a node that has it kept asks for none."""
        if isinstance(message, RuntimeOpen) and message.runtime is Runtime.DOCKER and message.library is None:
            return replace(message, library=self.client)
        return message

    def file(self, instruction: Ship) -> Path:
        """The file that an instruction ships. Blocks. Raises what is in UNMADE."""
        kind, _, name = instruction.purpose.partition(" ")
        if kind == LIBRARY:
            return library_zip(self.cache, name).path
        self.stage.mkdir(mode=0o700, exist_ok=True)
        archive = self.stage / f"{secrets.token_hex(4)}.tar"
        pack(instruction.shares, archive)
        return archive
