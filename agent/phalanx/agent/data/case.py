"""The data sets of an open case: where they are, what the workload is told, the program that fills them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import phalanx.agent
from phalanx.agent.data.places import IN_CACHE, DataPlace
from phalanx.protocol.messages import OWN_PROGRAM, CaseOpen, Runtime, StepStart

#: Variables of the agent that the program needs to reach anything through a proxy.
PASSED_ON = (
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
#: It ends without finalising Python: threads of the S3 client that still wait for an answer abort in that.
_BOOT = (
    "import os, sys; sys.path.insert(0, sys.argv[1]); "
    "from phalanx.agent.data.program import main; status = main(sys.argv[2:]); "
    "sys.stdout.flush(); sys.stderr.flush(); os._exit(status)"
)
#: Where the program leaves the reason of its failure, in the folder of its case.
_WHY = "data-why"
_LONGEST_WHY = 4096


@dataclass(frozen=True, slots=True)
class CaseData:
    """``base``: the folder of the case. ``library``: modules for the program. ``cache``: the node's."""

    base: Path
    cache: Path
    places: tuple[DataPlace, ...] = ()
    library: Path | None = None

    def with_mounts(self, message: CaseOpen) -> CaseOpen:
        """The same case with its data sets as mounts of a container; a process needs none."""
        mounts = message.spec.mounts
        if message.spec.runtime is not Runtime.PROCESS:
            mounts += tuple(one.mount() for one in self.places)
        return replace(message, spec=replace(message.spec, mounts=mounts, data=()))

    def seen(self, *, in_container: bool) -> str:
        """Where the workload finds them, joined by commas."""
        return ",".join(one.target if in_container else str(one.folder) for one in self.places)

    def told(self, message: StepStart, results: Path, socket: str, environ: Mapping[str, str]) -> StepStart:
        """A step of the agent's own program, with the case's places on this node in its environment."""
        env = {
            **message.env,
            **{name: environ[name] for name in PASSED_ON if name in environ},
            "PHALANX_DATA": json.dumps([[one.name, one.kind, str(one.folder)] for one in self.places]),
            "PHALANX_DATA_CACHE": str(self.cache / IN_CACHE),
            "PHALANX_DATA_WHY": str(self.base / _WHY),
            "PHALANX_LIBRARY": str(self.library or ""),
            "PHALANX_RESULTS": str(results),
            "PHALANX_SOCKET": socket,
        }
        return replace(message, env=env)

    def why(self) -> str:
        """What the program left as the reason of its failure, "" for nothing."""
        path = self.base / _WHY
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                words = file.read(_LONGEST_WHY).decode("utf-8", "replace").strip()
            path.unlink()
        except OSError:
            return ""
        return words


def is_own(message: StepStart) -> bool:
    """Whether a step is the agent's own program."""
    return message.where == "host" and message.argv[: len(OWN_PROGRAM)] == OWN_PROGRAM


def as_started(message: StepStart) -> StepStart:
    """The agent's own program by the words with which it is started on this node."""
    root = Path(phalanx.agent.__file__).parents[2]
    argv = (sys.executable or "python3", "-I", "-c", _BOOT, str(root), *message.argv[len(OWN_PROGRAM) :])
    return replace(message, argv=argv)
