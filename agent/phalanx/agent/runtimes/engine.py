"""The engine's API with a deadline on every call and errors that name the call.

An engine can be stopped in mid-air, restarted, or out of disk; whichever it is, a caller gets an EngineError
with words within its deadline and never waits for an answer that does not come. The client library is
imported here, at the first opening, and nowhere else.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from phalanx.agent.runtimes.base import LibraryMissing, RuntimeUnavailable

T = TypeVar("T")

#: Deadlines in seconds. A ping is answered by a busy engine too; making a container may pull in a cold disk.
PING_S, CALL_S, CREATE_S = 5.0, 15.0, 30.0

_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
_USER_SOCKETS = ("docker.sock", "podman/podman.sock")


#: What the client library gives as HTTP status where there was no connection.
_NO_CONNECTION = 900


class EngineError(RuntimeUnavailable):
    """A call that failed. ``status``: the engine's HTTP status, 0 when it did not answer at all."""

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status


def address(environment: dict[str, str] | None = None) -> str:
    """Where the engine is: DOCKER_HOST, else the first socket that exists, else Docker's own."""
    env = dict(os.environ) if environment is None else environment
    if env.get("DOCKER_HOST"):
        return env["DOCKER_HOST"]
    runtime_dir = env.get("XDG_RUNTIME_DIR", "")
    candidates = [*_SOCKETS, *(f"{runtime_dir}/{name}" for name in _USER_SOCKETS if runtime_dir)]
    found = next((path for path in candidates if Path(path).is_socket()), _SOCKETS[0])
    return f"unix://{found}"


def import_client(library: Path | None) -> Any:
    """The client module, from this Python or from ``library``. Raises LibraryMissing, RuntimeUnavailable."""
    if library is not None and str(library) not in sys.path:
        sys.path.insert(0, str(library))
        importlib.invalidate_caches()
    try:
        return importlib.import_module("aiodocker")
    except ModuleNotFoundError as error:
        if library is None:
            raise LibraryMissing("the engine's client (aiodocker) is not on this node") from error
        raise RuntimeUnavailable(f"cannot use the engine's client in {library}: {error}") from error
    except (ImportError, SyntaxError) as error:
        raise RuntimeUnavailable(
            f"cannot use the engine's client with Python {sys.version.split()[0]}: {error}; "
            "give the agent another interpreter"
        ) from error


class EngineClient:
    """An open connection to an engine, with the errors of its library turned into EngineError."""

    def __init__(self, library: Any, url: str) -> None:
        self._library = library
        self.url = url
        #: One image is loaded at a time: two only take the disk from each other.
        self.loading = asyncio.Lock()
        try:
            self.api: Any = library.Docker(url=url)
        except (ValueError, OSError) as error:
            raise EngineError(f"cannot use DOCKER_HOST {url}: {error}") from error

    async def call(self, what: str, awaitable: Awaitable[T], within_s: float = CALL_S) -> T:
        """The answer of a call of the library. ``what``: its name for people ("create a container")."""
        async with self.speaking(what, within_s):
            return await awaitable

    @asynccontextmanager
    async def speaking(self, what: str, within_s: float | None) -> AsyncIterator[asyncio.Timeout]:
        """The same for a block of calls. The deadline may be moved by who is inside (``reschedule``)."""
        import aiohttp

        scope = asyncio.timeout(within_s)
        try:
            async with scope:
                yield scope
        except self._library.exceptions.DockerError as error:
            if error.status == _NO_CONNECTION:
                cause = error.__context__ or error
                raise EngineError(f"cannot {what}: {self._unreachable(cause)}") from error
            raise EngineError(f"cannot {what}: {message(error)}", error.status) from error
        except TimeoutError as error:
            # the kernel's ETIMEDOUT is a TimeoutError too; only the scope knows its own
            if not scope.expired():
                raise EngineError(f"cannot {what}: the connection to {self.url} timed out") from error
            raise EngineError(
                f"cannot {what}: the container engine at {self.url} does not answer; "
                "it hangs or is overloaded, see its service on this node"
            ) from error
        except aiohttp.ServerDisconnectedError as error:
            raise EngineError(f"cannot {what}: the engine at {self.url} closed the connection") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError(f"cannot {what}: {self._unreachable(error)}") from error

    def _unreachable(self, error: BaseException) -> str:
        cause = getattr(error, "os_error", error)
        words = f"no container engine answers at {self.url}: {getattr(cause, 'strerror', None) or error}"
        if isinstance(cause, PermissionError):
            return f"{words}; add the user to the group of that socket, or set DOCKER_HOST to one of your own"
        return f"{words}; start it, or set DOCKER_HOST"

    async def close(self) -> None:
        """Let go of the connection."""
        await self.api.close()


def message(error: Any) -> str:
    """The engine's own words, in one line."""
    return " ".join(str(getattr(error, "message", "") or error).split())
