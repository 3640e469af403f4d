"""The scripts behind ``make``: what they say and do on machines that lack something."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.source import ROOT


def run(script: str, *arguments: str, path: Path, uid: int = 0) -> subprocess.CompletedProcess[str]:
    """A script with nothing on its PATH but what ``path`` holds and a recorded apt-get."""
    (path / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (path / "id").chmod(0o755)
    environment = {"PATH": str(path), "HOME": str(path)}
    argv = ["/bin/sh", str(ROOT / "tests" / script), *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def command(path: Path, name: str, body: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{body}\n")
    (path / name).chmod(0o755)


def tools(path: Path) -> Path:
    for name in ("mktemp", "rm", "tail"):
        (path / name).symlink_to(
            next(where for where in (f"/usr/bin/{name}", f"/bin/{name}") if Path(where).exists())
        )
    return path


def test_without_root_it_says_which_tiers_cannot_run_and_why(tmp_path: Path) -> None:
    done = run("parts.sh", path=tools(tmp_path), uid=1000)
    assert done.returncode == 0
    assert "tiers docker and lab cannot run: they need root" in done.stdout


def test_as_root_what_is_missing_is_installed_in_one_go_without_questions(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command(tools(tmp_path), "apt-get", f'echo "$DEBIAN_FRONTEND $*" >>{log}')
    done = run("parts.sh", path=tmp_path)
    assert done.returncode == 0, done.stderr
    update, install = log.read_text().splitlines()
    assert update == "noninteractive update -qq"
    assert install.startswith("noninteractive install -qq -y --no-install-recommends ")
    assert "docker.io" in install


def test_an_archive_that_does_not_answer_is_said_and_does_not_end_the_tests(tmp_path: Path) -> None:
    command(tools(tmp_path), "apt-get", "echo 'Temporary failure resolving'; exit 100")
    done = run("parts.sh", path=tmp_path)
    assert done.returncode == 0
    assert "Temporary failure resolving" in done.stderr
    assert "cannot install" in done.stderr


def test_a_python_that_is_too_old_is_named_with_the_way_out(tmp_path: Path) -> None:
    command(tmp_path, "python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = run("venv.sh", "python3", str(tmp_path / "venv"), path=tmp_path)
    assert done.returncode == 1
    assert "Python 3.9.2 is older than 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_no_python_at_all_is_said(tmp_path: Path) -> None:
    done = run("venv.sh", "python3", str(tmp_path / "venv"), path=tmp_path)
    assert done.returncode == 1
    assert "no python3 on this machine" in done.stderr


NO_VENV = 'case "$*" in *ensurepip*) exit 1;; *-m*) echo made >>$HOME/log;; esac'


def test_a_python_without_venv_is_completed_as_root(tmp_path: Path) -> None:
    command(tmp_path, "python3", NO_VENV)
    command(tmp_path, "apt-get", "echo $* >>$HOME/log")
    done = run("venv.sh", "python3", str(tmp_path / "venv"), path=tmp_path)
    assert done.returncode == 0, done.stderr
    update, install, made = (tmp_path / "log").read_text().splitlines()
    assert (update, made) == ("update -qq", "made")
    assert install.endswith("python3-venv")


def test_a_python_without_venv_is_explained_to_who_is_not_root(tmp_path: Path) -> None:
    command(tmp_path, "python3", NO_VENV)
    done = run("venv.sh", "python3", str(tmp_path / "venv"), path=tmp_path, uid=1000)
    assert done.returncode == 1
    assert "as root: apt-get install python3-venv" in done.stderr


def test_an_archive_without_a_browser_still_gives_the_other_parts(tmp_path: Path) -> None:
    body = 'case "$*" in *chromium*) exit 100;; esac; echo "$*" >>$HOME/log'
    command(tools(tmp_path), "apt-get", body)
    done = run("parts.sh", path=tmp_path)
    assert done.returncode == 0
    assert "tier browser cannot run" in done.stdout
    _, install = (tmp_path / "log").read_text().splitlines()
    assert install.endswith(" rsync")


def test_without_root_a_missing_browser_is_said(tmp_path: Path) -> None:
    done = run("parts.sh", path=tools(tmp_path), uid=1000)
    assert "tier browser cannot run: no chromium" in done.stdout
