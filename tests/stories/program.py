"""The real ``phalanx`` program as a test drives it: start it, wait for what it records, see how it ended."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stories.cluster import all_processes, command_line, until

#: The program of the environment that runs the tests.
PHALANX = Path(sys.executable).with_name("phalanx")
#: No story takes longer than this.
PATIENCE_S = 60.0

Event = dict[str, Any]


@dataclass(slots=True)
class Run:
    """One ``phalanx run``, while it goes and after."""

    process: subprocess.Popen[bytes]
    runs: Path
    said: Path
    known: frozenset[str]
    terminal: int | None = None
    folder_found: Path | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """The run directory."""
        if self.folder_found is None:
            until(lambda: self._new() or self.process.poll() is not None, 20.0, "a run directory")
            found = self._new()
            assert found, f"no run directory: {self.stderr}"
            self.folder_found = found[0]
        return self.folder_found

    def _new(self) -> list[Path]:
        return [
            path
            for path in self.runs.glob("*")
            if path.name not in self.known and not path.is_symlink() and (path / "run.json").exists()
        ]

    @property
    def id(self) -> str:
        return self.folder.name

    # What it says.

    @property
    def stdout(self) -> str:
        return (self.said / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.said / "stderr").read_text(errors="replace")

    @property
    def everything(self) -> str:
        return self.stdout + self.stderr

    def log(self, node: str, name: str) -> bytes:
        """A log file of the run."""
        return (self.folder / "logs" / node / name).read_bytes()

    # What it records.

    def events(self, kind: str = "", **match: object) -> list[Event]:
        """The recorded events of a kind whose data match, oldest first, each with its type."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        documents = [json.loads(line) for line in lines]
        found = [{**document["data"], "type": document["type"]} for document in documents]
        return [
            event
            for event in found
            if kind in ("", event["type"]) and all(event.get(key) == value for key, value in match.items())
        ]

    def wait_event(self, kind: str, *, within: float = 30.0, count: int = 1, **match: object) -> list[Event]:
        """Until that many such events are recorded. Raises AssertionError with what there is instead."""
        deadline = time.monotonic() + within
        while len(found := self.events(kind, **match)) < count:
            if time.monotonic() > deadline or (self.process.poll() is not None and kind != "run.finished"):
                found = self.events(kind, **match)
                assert len(found) >= count, f"{kind} {match} not seen {count} times\n{self.story()}"
            time.sleep(0.02)
        return found

    def wait_output(self, text: str, within: float = 30.0) -> None:
        """Until the program has written this to stdout or stderr."""
        until(lambda: text in self.everything, within, f"{text!r} in\n{self.story()}")

    @property
    def controller(self) -> int:
        """Pid of the run's controller."""
        return int(json.loads((self.folder / "control.json").read_text())["pid"])

    @property
    def verdict(self) -> Event:
        """The last event."""
        return self.wait_event("run.finished", within=5.0)[-1]

    def story(self) -> str:
        """All that helps to understand what happened."""
        parts = [f"exit {self.process.poll()}", self.stderr[-4000:], "stdout:", self.stdout[-1500:]]
        if self.folder_found is not None:
            parts += ["events:", *(json.dumps(event)[:300] for event in self.events()[-40:])]
            log = self.folder / "logs" / "controller.log"
            parts += ["controller:", log.read_text()[-3000:] if log.exists() else "no log"]
        return "\n".join(parts)

    # How it ends.

    def wait(self, within: float = PATIENCE_S) -> int:
        """The exit code of the program."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still going after {within:g} s\n{self.story()}") from None

    def ends(self, code: int, within: float = PATIENCE_S) -> None:
        """It ends with this code, and its controller with it."""
        found = self.wait(within)
        assert found == code, f"exit {found}, not {code}\n{self.story()}"
        if self._new():
            controller = self.controller
            until(lambda: not command_line(controller), 5.0, "the controller is gone")

    def type(self, keys: bytes) -> None:
        """Type on its terminal."""
        assert self.terminal is not None
        os.write(self.terminal, keys)


@dataclass(slots=True)
class Phalanx:
    """Starts the program with a runs directory, working directory and socket folder of the test's own."""

    place: Path
    environ: Mapping[str, str]
    started: list[Run] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        return self.place / "runs"

    @property
    def sockets(self) -> Path:
        return self.place / "xdg" / "phalanx"

    def start(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        terminal: bool = False,
    ) -> Run:
        """Start ``phalanx`` with these words and return at once."""
        said = self.place / f"said-{len(self.started)}"
        said.mkdir()
        known = frozenset(path.name for path in self.runs.glob("*"))
        master, slave = pty.openpty() if terminal else (None, None)
        with (said / "stdout").open("wb") as out, (said / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [PHALANX, *map(str, words)],
                stdin=slave if slave is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder or self.place,
                env={**self.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_take_terminal if terminal else None,
            )
        if slave is not None:
            os.close(slave)
        run = Run(process, self.runs, said, known, master)
        self.started.append(run)
        return run

    def run(self, *words: str | Path, code: int = 0, within: float = PATIENCE_S, **given: Any) -> Run:
        """Run ``phalanx`` to its end, which must be with this code."""
        run = self.start(*words, **given)
        run.ends(code, within)
        return run

    def ask(self, *words: str | Path, within: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Another verb, to its end, with its output."""
        return subprocess.run(
            [PHALANX, *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.place,
            env=dict(self.environ),
            timeout=within,
            check=False,
        )

    def processes(self) -> list[int]:
        """Processes of this machine that belong to runs of this test: controllers, agents, spawners."""
        marks = [str(self.runs), *(path.name for path in self.runs.glob("*") if not path.is_symlink())]
        return [
            pid
            for pid in all_processes()
            if any(mark in word for word in command_line(pid) for mark in marks)
        ]

    def leftovers(self) -> list[str]:
        """Controllers, sockets and processes of this test's runs that are still there on this machine."""
        found = [f"socket {path.name}" for path in self.sockets.glob("*.sock")]
        return found + [f"process {pid}: {' '.join(command_line(pid))[:150]}" for pid in self.processes()]

    def end_all(self) -> None:
        """Whatever a failed test left running ends here."""
        for run in self.started:
            if run.terminal is not None:
                os.close(run.terminal)
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
