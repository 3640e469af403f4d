"""phalanx build and the build before a run, as commands, with a stand-in for the engine's client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builds.making import AMD, card, project

pytestmark = pytest.mark.local
CANARY = "canary-55ee"
PHALANX = Path(sys.executable).with_name("phalanx")
#: Says what it is asked for, writes an id unless told otherwise, and can be slow or silent.
CLIENT = """#!/bin/sh
case "$1" in
version) echo 1.0; exit ;;
login) cat > /dev/null; exit ;;
image) exit 1 ;;
esac
[ "$2" = --help ] && { echo "--secret --build-context"; exit; }
echo "building $*"
[ -n "$SLOW" ] && { echo "$$" > "$SLOW"; sleep 60; }
while [ $# -gt 0 ]; do
    [ "$1" = --iidfile ] && [ -z "$NO_ID" ] && echo sha256:1 > "$2"
    shift
done
exit ${STATUS:-0}
"""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose engine's client is the stand-in."""
    client = tmp_path / "bin" / "docker"
    client.parent.mkdir()
    client.write_text(CLIENT)
    client.chmod(0o755)
    keep = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAD_", "PHALANX_", "SLURM"))
    }
    (tmp_path / "memory").mkdir()
    return {
        **keep,
        "PATH": f"{client.parent}:/usr/bin:/bin",
        "XDG_RUNTIME_DIR": str(tmp_path / "memory"),
        "MAD_SECRETS_X": CANARY,
    }


def mad(folder: Path, **more: Any) -> Path:
    text = AMD + "FROM a\nRUN --mount=type=secret,id=MAD_SECRETS_X true\n"
    return project(folder, [card("a", **more), card("b")], {"docker/dummy.Dockerfile": text})


def phalanx(folder: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PHALANX, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--tags", "all", "--dry-run", "--json"),
        ("build", "--tags", "all", "--build-on-compute", "--target", "slurm", "--dry-run", "--json"),
        ("run", "--tags", "all", "--dry-run", "--json"),
        ("run", "--tags", "all", "--image", "x", "--dry-run", "--json"),
    ],
)
def test_no_plan_shows_a_secret_that_was_given_on_the_command_line(
    tmp_path: Path, shell: dict[str, str], words: tuple[str, ...]
) -> None:
    context = {
        "docker_build_arg": {"API_KEY": CANARY, "INDEX": f"https://me:{CANARY}@host"},
        "docker_env_vars": {"HF_TOKEN": CANARY},
        "tools": [{"name": "test_tools_A", "env_vars": {"TOOL_TOKEN": CANARY}}],
    }
    done = phalanx(mad(tmp_path / "p"), shell, *words, "-c", json.dumps(context))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_told_to_end_leaves_nothing(
    tmp_path: Path, shell: dict[str, str], number: signal.Signals
) -> None:
    folder, mark = mad(tmp_path / "p"), tmp_path / "pid"
    book = {"r:1": {"username": "me", "password": "p"}}
    (folder / "credential.json").write_text(json.dumps(book))
    words = [PHALANX, "build", "--tags", "all", "--registry", "r:1"]
    process = subprocess.Popen(words, cwd=folder, env={**shell, "SLOW": str(mark)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    kept = {path.name for path in (tmp_path / "memory").rglob("*")}
    assert {"MAD_SECRETS_X.secret", "config.json"} <= kept
    process.send_signal(number)
    assert process.wait(20) == (130 if number is signal.SIGINT else 128 + number)
    assert not list((tmp_path / "memory").iterdir())
    assert not Path(f"/proc/{mark.read_text().strip()}").exists(), "the client has ended"
    assert not (folder / "build_manifest.json").exists()


def test_a_client_that_leaves_no_id_has_built_nothing(tmp_path: Path, shell: dict[str, str]) -> None:
    folder = mad(tmp_path / "p")
    done = phalanx(folder, {**shell, "NO_ID": "1"}, "build", "--tags", "all")
    assert done.returncode == 2
    assert "this is a bug" not in done.stderr
    manifest = json.loads((folder / "build_manifest.json").read_text())
    assert [one["model"] for one in manifest["summary"]["failed_builds"]] == ["a", "b"]


def test_a_reader_that_goes_away_ends_the_build_in_silence(tmp_path: Path, shell: dict[str, str]) -> None:
    line = f"{PHALANX} build --tags all --live-output 2>&1 >/dev/null | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=mad(tmp_path / "p"),
        env=shell,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "bug" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_a_log_of_another_build_is_not_written_into(tmp_path: Path, shell: dict[str, str]) -> None:
    folder = mad(tmp_path / "p")
    assert phalanx(folder, shell, "build", "--tags", "all").returncode == 0
    before = (folder / "b_dummy.build.live.log").read_text()
    assert "-t ci-b_dummy" in before
    assert phalanx(folder, shell, "build", "--tags", "a", "--clean-docker-cache").returncode == 0
    assert "--no-cache" in (folder / "a_dummy.build.live.log").read_text()
    assert (folder / "b_dummy.build.live.log").read_text() == before


@pytest.mark.parametrize(("option", "path"), [("-m", "gone/m.json"), ("-s", "gone/s.json"), ("-m", ".")])
def test_what_cannot_be_written_is_refused_before_anything_is_built(
    tmp_path: Path, shell: dict[str, str], option: str, path: str
) -> None:
    folder = mad(tmp_path / "p")
    done = phalanx(folder, shell, "build", "--tags", "all", option, path)
    assert (done.returncode, "cannot write" in done.stderr) == (4, True)
    assert not list(folder.glob("*.log"))


def test_a_secret_that_is_no_text_is_named_before_anything_is_built(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    folder = mad(tmp_path / "p")
    done = phalanx(folder, {**shell, "MAD_SECRETS_X": "caf\udce9"}, "build", "--tags", "all")
    words = "cannot use the secret MAD_SECRETS_X (env:MAD_SECRETS_X): it is not UTF-8 text"
    assert (done.returncode, words in done.stderr) == (4, True)
    assert not list(folder.glob("*.log"))


def test_a_pipe_is_no_manifest_and_stays_a_pipe(tmp_path: Path, shell: dict[str, str]) -> None:
    folder = mad(tmp_path / "p")
    os.mkfifo(folder / "pipe")
    done = phalanx(folder, shell, "build", "--tags", "all", "-m", "pipe")
    words = "pipe: it is no file, and runs begin from a manifest; name a file with -m"
    assert (done.returncode, done.stderr) == (4, f"phalanx: cannot write {folder}/{words}\n")
    assert (folder / "pipe").is_fifo()
    assert not list(folder.glob("*.log"))


def test_a_summary_goes_to_standard_output_when_that_is_its_name(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    folder = mad(tmp_path / "p")
    done = phalanx(folder, shell, "build", "--tags", "all", "-q", "-s", "/proc/self/fd/1")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["successful_builds"]) == 2


def test_models_of_a_manifest_get_the_secrets_that_they_need_and_no_others(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    folder = mad(tmp_path / "p", env_vars={"HF_TOKEN": CANARY})
    assert phalanx(folder, shell, "build", "--tags", "all").returncode == 0
    assert CANARY not in (folder / "build_manifest.json").read_text()
    plan = phalanx(folder, shell, "run", "-m", "build_manifest.json", "--tags", "b", "--dry-run", "--json")
    assert plan.returncode == 0, "b needs none"
    refused = phalanx(folder, shell, "run", "-m", "build_manifest.json", "--dry-run")
    assert (refused.returncode, "it needs the secret HF_TOKEN" in refused.stderr) == (4, True)
    given = phalanx(
        folder, {**shell, "HF_TOKEN": "x"}, "run", "-m", "build_manifest.json", "--dry-run", "--json"
    )
    cases = {case["name"]: case["env"] for case in json.loads(given.stdout)["cases"]}
    assert cases["a"]["HF_TOKEN"]["secret"] is True
    assert "HF_TOKEN" not in cases["b"]
