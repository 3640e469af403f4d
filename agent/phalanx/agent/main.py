"""The agent: read the bootstrap, join, then the rest. Nothing heavy is imported before it joined."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

from phalanx.agent import bootstrap as boot
from phalanx.agent.session import NOT_JOINED, NotJoined, Session, make_base, say

#: sysexits.h: EX_USAGE for an agent that was started wrongly.
EX_USAGE = 64
#: sysexits.h: EX_SOFTWARE.
EX_SOFTWARE = 70
#: prctl(2): PR_SET_DUMPABLE.
_PR_SET_DUMPABLE = 4


def parse_options(argv: list[str]) -> dict[str, str]:
    """``--name value`` pairs after ``run``. Raises BootstrapError for anything else."""
    options: dict[str, str] = {}
    words = iter(argv[1:])
    for word in words:
        if not word.startswith("--"):
            raise boot.BootstrapError(f"unexpected argument {word!r}")
        name, sign, value = word[2:].partition("=")
        if name in _FLAGS:
            options[name] = "yes"
        else:
            options[name] = value if sign else next(words, "")
    return options


_FLAGS = frozenset({"slurm", "remove-self"})


def harden() -> None:
    """No core dumps, no reading of our memory by others, no file that others can read."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else soft, hard))
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def cache_folder() -> Path:
    """Where libraries of the engine are kept between runs."""
    named = os.environ.get("PHALANX_CACHE_DIR") or ""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(home) / "phalanx"


async def live(session: Session) -> int:
    """Join and serve until told to leave; the exit status."""
    loop = asyncio.get_running_loop()
    joining = asyncio.current_task()
    assert joining is not None  # noqa: S101 - this runs in a task
    stopped: list[str] = []

    def give_up() -> None:
        stopped.append("SIGTERM before it had joined")
        joining.cancel()

    loop.add_signal_handler(signal.SIGTERM, give_up)
    try:
        await session.join()
    except asyncio.CancelledError:
        if stopped:  # ours: nobody else is told
            raise NotJoined(f"cannot join run {session.bootstrap.run_id}: {stopped[0]}") from None
        raise

    def drain() -> None:
        session.spawn(session.drain("SIGTERM: the scheduler is taking the node"), "drain")

    loop.add_signal_handler(signal.SIGTERM, drain)
    from phalanx.agent.duties import Duties  # from here on the controller knows that we are there

    duties = Duties(session, cache_folder())
    duties.take_up()
    try:
        return await session.run(duties.background())
    finally:
        await duties.close()


def main(argv: list[str]) -> int:
    """``phalanx-agent run [--node NAME --node-rank N]``; the exit status."""
    harden()
    try:
        options = parse_options(argv)
        told = boot.read()
        identity = boot.identify(options, os.environ)
    except boot.BootstrapError as error:
        say(f"cannot start: {error}")
        return EX_USAGE
    session = _make_session(told, identity)
    if session is None:
        return EX_USAGE
    try:
        return asyncio.run(live(session))
    except NotJoined as error:
        say(str(error))
        return NOT_JOINED
    except Exception as error:  # noqa: BLE001 - the door: whoever started us reads a line, not a traceback
        say(f"internal error: {_described(error)}; what it ran ends with its lease")
        return EX_SOFTWARE
    finally:
        if not session.logs.pending():
            shutil.rmtree(session.base, ignore_errors=True)
        if "remove-self" in options:
            _remove_self()


def _described(error: BaseException) -> str:
    """What broke and where: the innermost of an exception (of a group, its first)."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code if trace is not None else None
    where = f" in {code.co_name} ({Path(code.co_filename).name}:{trace.tb_lineno})" if code and trace else ""
    return f"{type(error).__name__}: {error}{where}"


def _make_session(told: boot.Bootstrap, identity: boot.Identity) -> Session | None:
    import secrets

    incarnation = secrets.token_hex(16)
    try:
        base = make_base(told.run_id, identity.node_rank, incarnation)
    except OSError as error:
        say(f"cannot make the agent's folder: {error}; set TMPDIR to a folder that can be written")
        return None
    return Session(told, identity, base, incarnation)


def _remove_self() -> None:
    """Remove the copy of the agent that srun --bcast made on this node."""
    own = Path(sys.argv[0])
    try:
        if own.stat().st_uid == os.geteuid() and own.name.startswith("phalanx-agent"):
            own.unlink()
    except OSError:
        return  # gone already, or not ours to remove
