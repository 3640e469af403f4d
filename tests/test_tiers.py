"""The rule that a tier which can run here does run, tried on sessions of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAME = "from tests.conftest import *\nimport tests.tiers\nfrom dataclasses import replace\n"


def session(
    where: Path, body: str, lacking: str = "[]", words: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A pytest session of its own with the real rule, in which ``lacking`` is what tier lab misses."""
    change = "\n".join(
        [
            "tiers = tuple(replace(t, missing=lambda: LACKING) if t.name == 'lab' else t for t in TIERS)",
            "for place in (tests.tiers, sys.modules['tests.conftest']):",
            "    place.TIERS = tiers",
            "TIERS = tiers",
        ]
    )
    (where / "conftest.py").write_text(f"{FRAME}import sys\nLACKING = {lacking}\n{change}\n")
    (where / "test_it.py").write_text(f"import pytest\n{body}\n")
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(where),
        str(where),
        *words,
    ]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, cwd=where, env=environment, capture_output=True, text=True, check=False)


SKIPS = "@pytest.mark.lab\ndef test_a():\n    pytest.skip('no reason at all')\n"
RUNS = "@pytest.mark.lab\ndef test_b():\n    pass\n"


def test_a_skipped_test_of_a_tier_that_can_run_fails_the_session(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS + RUNS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SKIPPED although everything it needs is here" in done.stdout
    assert "no reason at all" in done.stdout


def test_a_tier_of_which_nothing_ran_is_named(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS)
    assert done.returncode == 1
    assert "tier lab can run here and did not" in done.stdout


def test_a_tier_that_cannot_run_here_may_be_skipped_and_says_why(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, lacking="['slurmctld missing']")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot run here: slurmctld missing" in done.stdout


@pytest.mark.parametrize("body", [RUNS, "def test_plain():\n    pass\n"])
def test_a_session_in_which_all_ran_is_green(tmp_path: Path, body: str) -> None:
    done = session(tmp_path, body)
    assert done.returncode == 0, done.stdout + done.stderr


HEAVY = "@pytest.mark.torch\ndef test_c():\n    assert False\n"


def test_a_tier_that_is_run_when_asked_for_is_left_out_and_counted(tmp_path: Path) -> None:
    done = session(tmp_path, HEAVY + RUNS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 left out; make test-torch runs them" in done.stdout


@pytest.mark.parametrize("markers", ["torch", "lab or torch"])
def test_a_tier_that_is_asked_for_runs(tmp_path: Path, markers: str) -> None:
    done = session(tmp_path, HEAVY + RUNS, words=("-m", markers))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout


def test_a_name_that_only_looks_like_a_tier_asks_for_none(tmp_path: Path) -> None:
    done = session(tmp_path, HEAVY + RUNS, words=("-m", "not torchvision"))
    assert done.returncode == 0, done.stdout + done.stderr
