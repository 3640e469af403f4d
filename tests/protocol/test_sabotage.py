"""Would the tests notice? Lines of the protocol that keep a promise are broken, one at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.source import ROOT

HERE = Path(__file__).parent


class Sabotage(NamedTuple):
    """A line of a module, what it is broken into, and the test module that must notice."""

    module: str
    line: str
    broken: str
    tests: str
    only: str = ""


SABOTAGES = {
    "hello is believed": Sabotage(
        "handshake", "if not hmac.compare_digest(hello.mac,", "if False and (hello.mac,", "test_handshake"
    ),
    "welcome is believed": Sabotage(
        "handshake", "if not hmac.compare_digest(welcome.mac,", "if False and (welcome.mac,", "test_handshake"
    ),
    "certificate is not in the transcript": Sabotage(
        "handshake", "said = _AGENT + certificate_hash + ", "said = _AGENT + ", "test_handshake"
    ),
    "challenge is not in the transcript": Sabotage(
        "handshake",
        "certificate_hash + _hash(challenge) + _hash_without_mac(hello",
        "certificate_hash + _hash_without_mac(hello",
        "test_handshake",
    ),
    "node is not in the key": Sabotage(
        "handshake",
        '"join", run_id, node, str(node_rank)',
        '"join", run_id, str(node_rank)',
        "test_handshake",
    ),
    "cap is not checked": Sabotage(
        "frames", "if not 0 <= body_length <= ", "if False and not 0 <= body_length <= ", "test_frames"
    ),
    "direction is not checked": Sabotage(
        "frames", "not in (sender, Direction.BOTH)", "is None", "test_schema", "wrong_side"
    ),
    "stranger may go on talking": Sabotage(
        "connection", "self._decoder.allowed = frozenset()", "pass", "test_handshake"
    ),
    "same member counts twice": Sabotage(
        "barrier", "return self._again(self._over[key], member)", "return self._over[key]", "test_barrier"
    ),
    "undeclared hole is written over": Sabotage(
        "logstream", "if offset > self.received:", "if False:", "test_logstream"
    ),
    "ack goes ahead of the disk": Sabotage(
        "logstream", "min(offset, self.received)", "offset", "test_logstream"
    ),
    "chunk is not verified": Sabotage("blob", "self.manifest.verify(index, payload)", "pass", "test_blob"),
    "live agent is pushed out": Sabotage(
        "membership", "if seat.state is Member.EXPECTED:", "if True:", "test_membership"
    ),
    "dead peer is never dead": Sabotage(
        "liveness", "return Health.DEAD", "return Health.ALIVE", "test_connection"
    ),
    "text has no limit": Sabotage("schema", "or len(value) > longest", "or False", "test_limits"),
    "what was sent is forgotten": Sabotage(
        "lifeline", "return list(self._kept)", "return []", "test_lifeline"
    ),
}


def tried(sabotage: Sabotage, tmp_path: Path) -> tuple[int, str]:
    """Run one test module against a copy of the protocol in which a line is another."""
    module, line, broken, tests, only = sabotage
    copy = tmp_path / "protocol"
    shutil.copytree(ROOT / "protocol", copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "phalanx" / "protocol" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    assert line in source, f"{module}.py has changed: say here what breaks it now"
    path.write_text(source.replace(line, broken), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(copy), "HYPOTHESIS_PROFILE": "unshrunk"}
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        str(HERE / f"{tests}.py"),
        "-k",
        only,
    ]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", SABOTAGES)
def test_the_tests_notice_when(name: str, tmp_path: Path) -> None:
    status, said = tried(SABOTAGES[name], tmp_path)
    assert status == 1, said[-2000:]
    assert " failed" in said


def test_a_copy_that_nobody_broke_is_green(tmp_path: Path) -> None:
    status, said = tried(Sabotage("errors", "class", "class", "test_connection"), tmp_path)
    assert status == 0, said[-2000:]
