"""A model's folder as a node has it, with phalanx's files beside it, and programs of our own on the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from phalanx.controller.workflow.bundled import bundled_files

#: Shells that scripts of ours must run in; the last where it is there.
SHELLS = ["sh", "bash", *(["busybox"] if shutil.which("busybox") else [])]
#: What programs of the base system our scripts may call.
SYSTEM = os.defpath


def shell(name: str) -> list[str]:
    return ["busybox", "sh"] if name == "busybox" else [name]


@dataclass
class Place:
    """``work`` is the model's folder, where everything runs; ``programs`` is first on the PATH."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.root / "run_directory"

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    def program(self, name: str, script: str) -> Path:
        """A program of this name, in sh unless the script says another interpreter."""
        path = self.programs / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def environ(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"PATH": f"{self.programs}:{SYSTEM}", "HOME": str(self.root), **self.env, **(more or {})}

    def run(
        self, *argv: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in argv],
            cwd=self.work,
            env=self.environ(env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, argv: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, cwd=self.work, env=self.environ(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.started.append(process)
        return process

    def cleared(self) -> None:
        """Nothing that was started is left, whatever a test has done with it."""
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def tool(name: str) -> str:
    """A program of ours as a command in the model's folder names it."""
    return f"../scripts/common/tools/{name}"


def made(root: Path) -> Place:
    """A place with our files, as a node would get them."""
    for name, source in bundled_files().items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    place = Place(root)
    place.work.mkdir()
    place.programs.mkdir()
    (place.programs / "python3").symlink_to(sys.executable)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = made(tmp_path)
    yield found
    found.cleared()
