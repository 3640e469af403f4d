"""Running ``phalanx`` as a user does: as a program, with pipes or on a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
#: How long a program may take to say or do what a test waits for.
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Phalanx:
    """The command in a place of its own."""

    place: Path
    fake: bool = True

    @property
    def runs(self) -> Path:
        """Where its runs are."""
        return self.place / "runs"

    def part(self, acts: Sequence[dict[str, Any]]) -> None:
        """What the fake controller of the next run plays."""
        (self.place / "part.json").write_text(json.dumps(list(acts)))

    def environ(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """A quiet environment: no allocation, no colours, no CI."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "USER") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": str(REPOSITORY),
            "PHALANX_RUNS_DIR": str(self.runs),
            "XDG_STATE_HOME": str(self.place / "state"),
            "PHALANX_FAKE_PART": str(self.place / "part.json"),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            **(extra or {}),
        }

    def argv(self, *words: str) -> list[str]:
        """The command line."""
        module = "tests.cli.with_fake_controller" if self.fake else "phalanx.controller.cli"
        return [sys.executable, "-m", module, *words]

    def __call__(self, *words: str, env: dict[str, str] | None = None) -> Done:
        """Run it to its end, with pipes."""
        done = subprocess.run(
            self.argv(*words),
            cwd=self.place,
            env=self.environ(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start it, with pipes."""
        return subprocess.Popen(
            self.argv(*words),
            cwd=self.place,
            env=self.environ(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def only_run(self) -> Path:
        """The directory of the one run there is."""
        (found,) = [path for path in self.runs.iterdir() if path.is_dir() and not path.is_symlink()]
        return found


class Terminal:
    """The command on a terminal: its keys are typed, its output is read."""

    def __init__(self, phalanx: Phalanx, *words: str, env: dict[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (30, 120))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.output = b""
        self._seen = 0
        self.process = subprocess.Popen(
            phalanx.argv(*words),
            cwd=phalanx.place,
            env=phalanx.environ(env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(slave),
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def type(self, keys: bytes) -> None:
        """As if pressed; b"\\x03" is Ctrl-C."""
        os.write(self._master, keys)

    def until(self, text: str) -> None:
        """Read until the text was shown after the last one. Fails after a while, with all that was shown."""
        end = time.monotonic() + PATIENCE_S
        while (found := self.output.find(text.encode(), self._seen)) < 0:
            assert self._read(end), (
                f"{text!r} was not shown; shown was:\n{self.output.decode(errors='replace')}"
            )
        self._seen = found + len(text.encode())

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < end:
            self._read(time.monotonic() + 0.05)
        while self._read(time.monotonic()):
            pass
        return self.process.wait(1)

    def settings(self) -> list[Any]:
        """The terminal's modes as they are now."""
        return termios.tcgetattr(self._slave)

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        self.output += os.read(self._master, 65536)
        return True


def _take_terminal(slave: int) -> None:
    """Make the terminal the controlling one, so that Ctrl-C becomes SIGINT."""
    import fcntl

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
