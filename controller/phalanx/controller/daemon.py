"""The controller's program: one process per run, in a session of its own, spoken to over its socket.

``runs/launch`` forks it off the command that made the plan. By hand, for a run directory with a plan in it:
``python -m phalanx.controller.daemon RUN_DIR``, secrets as one JSON line on stdin. It outlives the terminal
that started it; the event log in the run directory is all that anyone needs to know what became of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvloop

from .control.server import ControlServer, Watchers
from .control.socket_path import SocketFolderError, make_socket_path
from .fleet.conductor import Conductor
from .fleet.ending import leaves
from .fleet.journal import JournalError
from .fleet.listener import ListenError
from .plan.model import Plan
from .runs.directory import RunDirectory
from .targets import make_target
from .targets.base import AllocationError
from .targets.bundle import CacheError
from .targets.library_file import LibraryIncomplete
from .workflow.errors import InputError

#: prctl(2): PR_SET_DUMPABLE, PR_SET_NAME.
_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15
#: What ps and killall call it: its command line is that of the client, which may be ended without harm.
PROCESS_NAME = b"phalanx-control"
#: File descriptors of the controller itself, and for each node: control and bulk connection, and a log.
FDS_OWN, FDS_PER_NODE = 128, 3

#: Seconds that the history may take: three times what it waits for another writer.
HISTORY_S = 30.0

log = logging.getLogger("phalanx.controller")


def read_secrets() -> dict[str, str]:
    """The secrets of the run from stdin; stdin is closed for everything that comes after."""
    line = sys.stdin.buffer.readline(16 * 1024 * 1024)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    document = json.loads(line) if line.strip() else {}
    return {str(name): str(value) for name, value in document.get("secrets", {}).items()}


def harden() -> int:
    """Nothing that others can read, no core dump, a name, as many file descriptors as we may have.

    Returns the umask that was: that of the user, by which files in a project are made.
    """
    umask = os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, PROCESS_NAME, 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return umask


def write_control(run_dir: Path, socket_path: Path) -> None:
    """Say where we can be reached: ``control.json``, written whole or not at all."""
    document = {"v": 1, "pid": os.getpid(), "socket": str(socket_path), "started_at": time.time()}
    part = run_dir / "control.json.part"
    part.write_text(json.dumps(document))
    part.replace(run_dir / "control.json")


class TooFewDescriptors(Exception):
    """The run needs more file descriptors than the process may have; the message says how many."""


def check_descriptors(nodes: int) -> None:
    """Refuse before anything is touched what would fail in the middle. Raises TooFewDescriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FDS_OWN + FDS_PER_NODE * nodes
    if soft < needed:
        raise TooFewDescriptors(
            f"cannot hold {nodes} nodes: {needed} file descriptors are needed, the limit is {soft}; "
            f"raise it with `ulimit -n {needed}` or in limits.conf"
        )


class Stopping:
    """What signals ask for: the first ends the run, the second kills it, the third gives up at once."""

    def __init__(self, conductor: Conductor, conducting: asyncio.Task[None]) -> None:
        self._conductor = conductor
        self._conducting = conducting
        self._asked = 0

    def on_signal(self, number: signal.Signals) -> None:
        """TERM or INT came."""
        self._asked += 1
        log.info("%s, for the %d. time", number.name, self._asked)
        if self._asked <= 2:
            self._conductor.cancel(self._asked, number.name)
        elif self._asked == 3:
            self._conducting.cancel()


async def serve(run_dir: Path, plan: Plan, secrets: dict[str, str], file_mode: int) -> None:
    """Conduct the run and answer on its socket until it is over. ``file_mode``: of files for the user."""
    check_descriptors(plan.target.nodes)
    watchers = Watchers()
    conductor = Conductor(
        run_dir,
        plan,
        lambda name: secrets.get(name, ""),
        make_target(plan),
        watchers.publish,
        watchers.progress,
        file_mode,
    )
    server = ControlServer(conductor, watchers)
    socket_path = make_socket_path(plan.run_id)
    await server.start(socket_path)
    loop = asyncio.get_running_loop()
    conducting = asyncio.create_task(conductor.conduct(), name="the run")
    stopping = Stopping(conductor, conducting)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, log.info, "the terminal is gone; the run goes on")
    write_control(run_dir, socket_path)
    telling = asyncio.create_task(server.keep_telling(), name="log sizes for watchers")
    try:
        await conducting
    finally:
        telling.cancel()
        server.tell_sizes()
        await into_history(run_dir)
        await watchers.close()
        await server.close()
        socket_path.unlink(missing_ok=True)


async def into_history(run_dir: Path, patience_s: float = HISTORY_S) -> None:
    """Add the run to the history of its user; a file that does not answer is left alone after a while."""
    from .runs.history import keep  # its libraries are needed once the run is over

    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        keep(RunDirectory(run_dir), os.environ)
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(done.set)

    # A daemon, not one of the loop's threads: those are waited for, and a dead file server never answers.
    threading.Thread(target=work, name="history", daemon=True).start()
    try:
        async with asyncio.timeout(patience_s):
            await done.wait()
    except TimeoutError:  # our own deadline
        log.warning("the history did not take the run within %g s; see: phalanx history import", patience_s)


#: What is told in one line: the message says what cannot be done and why.
SPOKEN = (
    JournalError,
    ListenError,
    AllocationError,
    CacheError,
    LibraryIncomplete,
    SocketFolderError,
    TooFewDescriptors,
    InputError,
    OSError,
)


def main(argv: list[str]) -> int:
    """Run the controller of the run directory in ``argv``; 0 when the run came to its own end."""
    from .plan.codec import from_json  # a run that was planned in this process does without pydantic

    run_dir = Path(argv[0])
    return run(run_dir, lambda: (from_json((run_dir / "plan.json").read_bytes()), read_secrets()))


def run(run_dir: Path, told: Callable[[], tuple[Plan, dict[str, str]]]) -> int:
    """Be the controller of a run; 0 when it came to its own end. ``told`` gives its plan and secrets."""
    file_mode = 0o666 & ~harden()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        plan, secrets = told()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(run_dir, plan, secrets, file_mode))
    except (Exception, BaseExceptionGroup, asyncio.CancelledError) as error:  # noqa: BLE001 - who else could say why
        return _failed(error)
    return 0


def _failed(error: BaseException) -> int:
    """Say in the controller's log why there is no last event, or why it says that phalanx failed."""
    for leaf in leaves(error):
        if isinstance(leaf, SPOKEN):
            log.error("%s", leaf)
        elif not isinstance(leaf, asyncio.CancelledError):
            log.error("the controller failed: %s: %s", type(leaf).__name__, leaf, exc_info=leaf)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
