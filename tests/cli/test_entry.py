"""The first moments of the command: Ctrl-C ends it without a traceback, wherever Python is by then."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable

import pytest

from .driver import PATIENCE_S, REPOSITORY, Phalanx

pytestmark = pytest.mark.local
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
#: Ctrl-C comes when a module is about to be imported; the console script then goes on as pip writes it.
PROGRAM = """
import os, signal, sys

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
sys.argv = ["phalanx", "ps"]
from {entry} import main
sys.exit(main())
"""


def pressed(
    phalanx: Phalanx, module: str, before: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[bytes]:
    program = PROGRAM.format(module=module, entry=SCRIPTS["phalanx"].removesuffix(":main"))
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=phalanx.place,
        env=phalanx.environ(),
        capture_output=True,
        timeout=PATIENCE_S,
        preexec_fn=before,
        check=False,
    )


@pytest.mark.parametrize("module", ["click", "phalanx.controller.cli.main"])
def test_ctrl_c_while_modules_are_imported_ends_the_command_in_silence(phalanx: Phalanx, module: str) -> None:
    done = pressed(phalanx, module)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_ctrl_c_in_a_verb_is_heard(phalanx: Phalanx) -> None:
    done = pressed(phalanx, "phalanx.controller.cli.ps")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, b"", b"")


def test_ctrl_c_that_is_ignored_stays_so(phalanx: Phalanx) -> None:
    done = pressed(phalanx, "click", lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)


def test_the_module_is_the_same_command() -> None:
    source = (REPOSITORY / "controller/phalanx/controller/cli/__main__.py").read_text()
    assert f"from {SCRIPTS['phalanx'].removesuffix(':main')} import main" in source
