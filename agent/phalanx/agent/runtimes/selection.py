"""From the name of a runtime on the wire to its implementation, imported only when it is asked for."""

from __future__ import annotations

from pathlib import Path

from phalanx.agent.runtimes.base import Runtime
from phalanx.protocol import messages


def runtime(kind: messages.Runtime, spool_root: Path) -> Runtime:
    """The runtime of that name. ``spool_root``: the directory in which runs make theirs, for ``sweep``."""
    if kind is messages.Runtime.DOCKER:
        from phalanx.agent.runtimes.docker import DockerRuntime

        return DockerRuntime(spool_root)
    from phalanx.agent.runtimes.process import ProcessRuntime

    return ProcessRuntime(spool_root)
