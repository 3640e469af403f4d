"""Neither a user's secret nor the run's own is to be seen anywhere but in the ranks that were given it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.stories.cluster import Cluster, all_processes, command_line, environment
from tests.stories.payloads import IN_CONTAINERS, meet
from tests.stories.program import Phalanx

pytestmark = pytest.mark.lab
ENDS_WHEN_TOLD = f'test -n "$TOKEN" && echo has it; {meet("up")}; while [ ! -e /tmp/go ]; do sleep 0.1; done'


def files_with(canaries: Iterable[bytes], folders: Iterable[Path]) -> list[str]:
    """Files below the folders that hold one of the canaries."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if not path.is_file() or path.is_symlink():
                continue
            try:
                data = path.read_bytes()
            except OSError:
                continue
            found += [str(path) for canary in canaries if canary in data]
    return found


def processes_with(canaries: Iterable[bytes]) -> list[str]:
    """Command lines that hold a canary, and environments of others than ranks (and this test) that do."""
    found = []
    for pid in all_processes():
        words, environ = " ".join(command_line(pid)).encode(), environment(pid)
        found += [f"command line of {pid}" for canary in canaries if canary in words]
        if b"PHALANX_RANK=" not in environ and pid != os.getpid():
            found += [f"environment of {pid}: {words[:80]!r}" for canary in canaries if canary in environ]
    return found


def test_secrets_are_in_no_command_line_environment_file_or_label_but_the_ranks_own(
    cluster: Cluster, phalanx: Phalanx, tee_srun: Path, place: Path
) -> None:
    token = f"canary-{secrets.token_hex(12)}"
    given = place / "token"
    given.write_text(token)
    given.chmod(0o600)
    argv = (*IN_CONTAINERS, "--secret", f"TOKEN=file:{given}", "--", "sh", "-c", ENDS_WHEN_TOLD)
    run = phalanx.start(*argv)
    run.wait_event("barrier.released")
    join_secret = json.loads(tee_srun.read_bytes())["secret"]
    tee_srun.unlink()
    given.unlink()
    canaries = [token.encode(), join_secret.encode(), bytes.fromhex(join_secret)]

    assert not processes_with(canaries)
    for node in cluster.nodes:
        for container in cluster.lab.containers(node, "phalanx.run"):
            shown = cluster.lab.exec(node, ["docker", "inspect", container.id], check=True).stdout
            assert token not in shown
            assert join_secret not in shown
    assert not files_with(canaries, [run.folder, place / "xdg"])
    lab = cluster.lab.topology
    assert not files_with(canaries, [lab.state / "slurmctld", lab.log, lab.etc])
    assert not files_with(canaries, [cluster.lab.path(node, "/var/spool/slurmd") for node in cluster.nodes])

    assert phalanx.ask("exec", "--", "touch", "/tmp/go").returncode == 0
    run.ends(0)
    assert run.stdout.count("has it") == 4
    assert token not in run.everything
    assert not files_with(canaries, [place, *(cluster.lab.path(node, "/tmp") for node in cluster.nodes)])
