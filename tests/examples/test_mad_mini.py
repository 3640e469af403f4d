"""The example project: its cards are sound, and its main job sums right wherever the contract is kept."""

from __future__ import annotations

import http.server
import io
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from phalanx.controller.plan.inputs import RunInputs
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.results.extract import search
from phalanx.controller.results.table import read_table, results_of
from phalanx.controller.workflow.models import selected

PROJECT = Path(__file__).parents[2] / "examples" / "mad-mini"
WITHIN_S = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def environment(
    rank: int, world: int, port: int, results: Path, per_node: int = 1, **more: str
) -> dict[str, str]:
    """The contract for one rank, and nothing else of this process but the path."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % per_node),
        "WORLD_SIZE": str(world),
        "NODE_RANK": str(rank // per_node),
        "NNODES": str(world // per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PHALANX_RESULTS": str(results),
        **more,
    }


def run_model(
    model: str, world: int, results: Path, *args: str, **more: str
) -> list[subprocess.CompletedProcess[str]]:
    """Run a model's script on all ranks at once."""
    folder = PROJECT / "scripts" / model
    argv = ["bash", "run.sh"] if (folder / "run.sh").exists() else [sys.executable, f"{model}.py"]
    port = free_port()
    ranks = [
        subprocess.Popen(
            [*argv, *args],
            cwd=folder,
            env=environment(rank, world, port, results, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    ended = []
    try:
        for process in ranks:
            out, err = process.communicate(timeout=WITHIN_S)
            ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in ranks:
            process.kill()
    return ended


@pytest.mark.local
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_ring_sums_right_on_every_rank_and_reports_once(tmp_path: Path, world: int) -> None:
    ended = run_model("ring_allreduce", world, tmp_path, "--mib", "0.5", "--iterations", "3")
    assert [(one.returncode, one.stderr) for one in ended] == [(0, "")] * world
    for rank, one in enumerate(ended):
        assert [line for line in one.stdout.splitlines() if "sums ok" in line and f"[rank {rank}]" in line][
            2:
        ]
        [row] = read_table(tmp_path / f"perf_rank{rank}.csv").rows
        assert float(row["performance"]) > 0
    values = [search(io.BytesIO(one.stdout.encode())) for one in ended]
    assert values[0] is not None
    assert values[0].metric == "MB/s"
    assert values[1:] == [None] * (world - 1)


@pytest.mark.local
def test_a_vector_that_does_not_divide_evenly_is_summed_as_well(tmp_path: Path) -> None:
    ended = run_model("ring_allreduce", 3, tmp_path, "--mib", "0.0001", "--iterations", "2")
    assert [one.returncode for one in ended] == [0] * 3


class Barrier(http.server.BaseHTTPRequestHandler):
    """The agent's barrier, as far as a workload sees it."""

    protocol_version = "HTTP/1.1"
    meeting: threading.Barrier
    seen: list[str]

    def do_POST(self) -> None:
        self.seen.append(self.path)
        try:
            self.meeting.wait(WITHIN_S)
            status, words = 200, b"{}"
        except threading.BrokenBarrierError:
            status, words = 409, b"rank 1 is gone"
        self.send_response(status)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def address_string(self) -> str:
        return "rank"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def agent(path: Path, meeting: threading.Barrier) -> Iterator[list[str]]:
    seen: list[str] = []
    handler = type("Handler", (Barrier,), {"meeting": meeting, "seen": seen})
    with Server(str(path), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.local
def test_with_an_agent_the_ranks_meet_at_its_barrier(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with agent(path, threading.Barrier(2)) as seen:
        ended = run_model(
            "ring_allreduce", 2, tmp_path, "--mib", "0.1", "--iterations", "1", PHALANX_SOCKET=str(path)
        )
    assert [one.returncode for one in ended] == [0, 0]
    names = ["ring", "iteration-0", "done"]
    assert sorted(seen) == sorted(f"/barrier/{name}?rank={rank}" for name in names for rank in (0, 1))


@pytest.mark.local
def test_a_barrier_that_fails_ends_the_ranks_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "s"
    broken = threading.Barrier(2)
    broken.abort()
    with agent(path, broken):
        ended = run_model("ring_allreduce", 2, tmp_path, PHALANX_SOCKET=str(path))
    assert [one.returncode for one in ended] == [1, 1]
    assert "barrier ring failed: rank 1 is gone" in ended[0].stderr


@pytest.mark.local
def test_strangers_at_the_meeting_port_are_sent_away(tmp_path: Path) -> None:
    port = free_port()
    folder = PROJECT / "scripts" / "ring_allreduce"

    def start(rank: int) -> subprocess.Popen[str]:
        argv = ["bash", "run.sh", "--mib", "0.1", "--iterations", "1"]
        env = environment(rank, 2, port, tmp_path)
        return subprocess.Popen(
            argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    first = start(0)
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"", b'{"run": "other", "rank": 1, "port": 1}\n', b"[]\n"):
        with connected(port) as stranger:
            stranger.sendall(words)
    second = start(1)
    for process in (first, second):
        out, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, err) == (0, ""), out


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection to a port that may not be open yet."""
    for _ in range(200):
        try:
            link = socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
            continue
        with link:
            yield link
        return
    pytest.fail(f"nothing listens on port {port}")


@pytest.mark.local
def test_hello_leaves_results_from_every_rank(tmp_path: Path) -> None:
    ended = run_model("hello", 2, tmp_path, MAD_OUTPUT_CSV="hello_results.csv")
    assert [one.returncode for one in ended] == [0, 0]
    for rank in range(2):
        assert results_of(tmp_path / f"rank{rank}" / "hello_results.csv").valued == 2


@pytest.mark.local
def test_one_rank_fails_with_the_status_it_was_given(tmp_path: Path) -> None:
    ended = run_model("fail_on_rank", 2, tmp_path, "--rank", "1", "--after", "0", "--patience", "0.1")
    assert [one.returncode for one in ended] == [0, 7]


@pytest.mark.local
def test_a_hog_that_nobody_kills_gives_up(tmp_path: Path) -> None:
    [ended] = run_model("hog", 1, tmp_path, "--most-mib", "32")
    assert (ended.returncode, "was not killed at 32 MiB" in ended.stderr) == (1, True)


@pytest.mark.local
def test_without_the_contract_the_error_says_what_is_missing(tmp_path: Path) -> None:
    folder = PROJECT / "scripts" / "ring_allreduce"
    env = {"PATH": os.environ["PATH"], "RANK": "0", "WORLD_SIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        ["bash", "run.sh"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "cannot run more than one rank: MASTER_PORT is not set\n")


def test_every_card_makes_a_plan() -> None:
    chosen = tuple(selected(PROJECT, ["all"]))
    plan = plan_for_tags(RunInputs(run_id="r", cwd="/", models=chosen, nodes=4))
    assert [case.name for case in plan.cases] == ["ring_allreduce", "hello", "fail_on_rank", "hog"]
    assert plan.warnings == ()
    [main] = [step for step in plan.cases[2].steps if step.name == "main"]
    assert main.argv == ("python3", "fail_on_rank.py", "--rank", "1", "--status", "7")


def test_every_card_has_a_dockerfile_in_mad_form() -> None:
    for model in selected(PROJECT, ["all"]):
        [dockerfile] = PROJECT.glob(f"{model.card.dockerfile}.*")
        assert dockerfile.read_text().startswith("# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}\n")
