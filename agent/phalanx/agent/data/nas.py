"""Folders of a file server, by rsync over ssh, with a password that only ssh asks for.

The password goes to ssh through SSH_ASKPASS (ssh(1)): a script without a secret in it prints a variable of
the environment that rsync and ssh inherit. It is in no command line and in no file. Keys of hosts are kept
beside the cache's data; a host that is new is believed, one whose key has changed is not (accept-new).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from phalanx.agent.data.holding import check_room, held
from phalanx.agent.data.program import Choice, missing_programs
from phalanx.agent.data.progress import EVERY_S, size
from phalanx.agent.data.request import DataError, NasHost, Request, Source
from phalanx.agent.relay.place import private_directory

#: How long a host may take to answer, and to say what it has, in seconds.
CONNECT_S = 15
LOOK_S = 300.0
#: Bytes of rsync's words that are kept for an error.
_MOST_WORDS = 4096
_PASSWORD = "PHALANX_NAS_PASSWORD"  # noqa: S105 - the name of a variable
_ASKPASS = f'#!/bin/sh\nprintf "%s\\n" "${_PASSWORD}"\n'
_TOTAL = re.compile(r"Total file size: ([\d,]+)")
_MISSING = re.compile(r"Total transferred file size: ([\d,]+)")


def reached(request: Request, source: Source, say: Callable[[str], None]) -> Choice | str:
    """The first host that has the path, or why none can be used."""
    if why := missing_programs("rsync", "ssh"):
        return why
    reasons = []
    for host in source.hosts:
        rsync = Rsync(host, request.cache)
        try:
            remote = rsync.look(source.path)
        except DataError as error:
            reasons.append(str(error))
            continue
        where = f"{host.name or host.host}:{source.path}"

        def fetch(rsync: Rsync = rsync, remote: str = remote, where: str = where) -> int:
            with held(request.folder, f"nas {where}", say):
                return rsync.fetch(remote, request.folder, alone=request.kind == "cache", say=say)

        return Choice("nas", where, fetch)
    return "; ".join(reasons)


@dataclass(frozen=True, slots=True)
class Rsync:
    """rsync against one host. ``cache``: where keys of hosts are kept."""

    host: NasHost
    cache: Path

    @property
    def _shown(self) -> str:
        return f"{self.host.name or self.host.host} ({self.host.host} port {self.host.port})"

    def look(self, path: str) -> str:
        """The path as rsync is to be told it: a folder ends in a slash. Raises DataError."""
        address = f"[{self.host.host}]" if ":" in self.host.host else self.host.host
        remote = f"{address}:{path}"
        listed = self._run(["--list-only", "--copy-links", "--dirs", remote.rstrip("/") or remote], LOOK_S)
        first = listed.lstrip().splitlines()[:1]
        if not first:
            raise DataError(f"{self._shown}: there is nothing at {path}")
        return remote.rstrip("/") + "/" if first[0].startswith("d") else remote

    def fetch(self, remote: str, folder: Path, *, alone: bool, say: Callable[[str], None]) -> int:
        """Make the folder hold what is there; its bytes. Raises DataError."""
        options = ["-rlt", "--safe-links", "--chmod=D755,F644", "--partial"]
        options += ["--delete"] if alone and remote.endswith("/") else []
        planned = self._run([*options, "--dry-run", "--stats", remote, f"{folder}/"], LOOK_S)
        total, missing = _bytes(_TOTAL, planned), _bytes(_MISSING, planned)
        check_room(folder, missing)
        say(f"{size(missing)} of {size(total)} are to come from {self._shown}")
        self._run([*options, "--info=progress2", remote, f"{folder}/"], None, say)
        return total

    def _run(self, words: list[str], within_s: float | None, say: Callable[[str], None] | None = None) -> str:
        """What rsync says. Raises DataError with its own words."""
        with _askpass() as askpass, tempfile.TemporaryFile() as errors:
            argv = ["rsync", "--protect-args", "-e", shlex.join(self._ssh()), *words]
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment(askpass),
            )
            try:
                said = _followed(process, say) if say else process.communicate(timeout=within_s)[0]
            except subprocess.TimeoutExpired:
                raise DataError(f"{self._shown}: it did not answer within {within_s:g} s") from None
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            if process.returncode:
                raise DataError(f"{self._shown}: {self._explained(process.returncode, errors)}")
            return said.decode("utf-8", "replace")

    def _ssh(self) -> list[str]:
        options = {
            "ConnectTimeout": str(CONNECT_S),
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.cache / "known_hosts"),
            "HashKnownHosts": "no",
            "NumberOfPasswordPrompts": "1",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "BatchMode": "no" if self.host.password else "yes",
        }
        if self.host.password:  # other ways first would use up the tries that a host allows
            options["PreferredAuthentications"] = "password,keyboard-interactive"
        private_directory(self.cache)
        argv = ["ssh", "-p", str(self.host.port)]
        argv += ["-l", self.host.user] if self.host.user else []
        return argv + [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def _environment(self, askpass: str) -> dict[str, str]:
        """What rsync and ssh need, and of all passwords the one of this host."""
        kept = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env |= {"LC_ALL": "C"}
        if self.host.password:
            # DISPLAY: OpenSSH before 8.4 asks a program only where it takes there to be a screen
            env |= {"SSH_ASKPASS": askpass, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
            env[_PASSWORD] = self.host.password
        return env

    def _explained(self, status: int, errors: IO[bytes]) -> str:
        errors.seek(0)
        words = errors.read(_MOST_WORDS).decode("utf-8", "replace")
        if self.host.password:
            words = words.replace(self.host.password, "***")
        lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
        telling = [line for line in lines if not line.startswith(("rsync error", "Warning: Permanently"))]
        if "Host key verification failed" in words:
            known = self.cache / "known_hosts"
            return f"the key of the machine is not the one that is known; if it should be, correct {known}"
        if any("Permission denied" in line and "(" in line for line in telling):
            return "it refuses the user or the password"
        # what follows the first are echoes of it: closed connections, broken pipes
        return telling[0][:600] if telling else f"rsync ended with status {status}"


@contextmanager
def _askpass() -> Iterator[str]:
    """A program that prints the password variable; there is no secret in its text."""
    folder = tempfile.mkdtemp(prefix="phalanx-askpass-")
    try:
        program = Path(folder, "askpass")
        program.write_text(_ASKPASS)
        program.chmod(0o700)
        yield str(program)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _followed(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> bytes:
    """rsync's own progress, a line every few seconds. It says it again and again, with a return between."""
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    told = time.monotonic()
    while piece := process.stdout.read1(65536):  # type: ignore[attr-defined]
        if time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            say(
                " ".join(piece.decode("utf-8", "replace").replace("\r", "\n").strip().split("\n")[-1].split())
            )
    process.wait()
    return b""


def _bytes(pattern: re.Pattern[str], words: str) -> int:
    found = pattern.search(words)
    return int(found[1].replace(",", "")) if found else 0
