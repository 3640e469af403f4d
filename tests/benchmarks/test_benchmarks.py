"""The benchmarks run, in a tiny size, and print what they promise. How fast they are is no verdict here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from phalanx.protocol.zstd import library

from tests.lab.lab import Lab
from tests.lab.parts import missing_parts

ROOT = Path(__file__).parent.parent.parent
NODES = 2


def document(program: str, *options: str) -> dict[str, Any]:
    """What a benchmark prints with --json, which must be one JSON document and nothing else."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{program}.py", *options, "--runs", "1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if missing := missing_parts():
        pytest.skip(f"no lab here: {', '.join(missing)}")
    made = Lab.up(name="benchtest", nodes=NODES, fresh=True)
    yield made
    made.down()


@pytest.mark.local
def test_the_barrier_benchmark_tells_of_joins_and_releases_and_of_its_peers() -> None:
    found = document("barrier", "--agents", "20")
    assert found["agents"] == 20
    ours = {
        "joined_ms",
        "released_ms",
        "tls_only_ms",
        "handshake_cpu_ms_per_agent",
        "controller_rss_kb_per_agent",
    }
    assert ours <= found.keys()
    assert found["peers"].keys() == {"polling_barrier", "bare_tcp"}
    for peer in found["peers"].values():
        assert {"joined_ms", "released_ms"} <= peer.keys()


@pytest.mark.local
def test_the_planning_benchmark_tells_of_help_completion_discovery_and_plans() -> None:
    found = document("planning", "--models", "50")
    figures = {"help_ms", "completion_ms", "discover_10k_s", "plan_1k_s", "plan_1k_pure_ms", "interpreter_ms"}
    assert figures <= found.keys()
    assert found["models"] == 50
    assert found["raw"]["help_ms"] > found["help_ms"]
    assert found["plan_1k_pure_ms"] < found["plan_1k_s"] * 1000


@pytest.mark.local
def test_the_results_benchmark_tells_of_logs_tables_and_records_and_of_their_peers() -> None:
    found = document("results", "--megabytes", "1", "--rows", "200", "--records", "20")
    for name in ("scan", "scan_harmless", "extract", "extract_last", "grep_errors", "grep_performance"):
        assert found[name]["mb_per_s"] > 0, name
    for name in ("pick", "pick_naive"):
        assert found[name]["rows_per_s"] > 0, name
    for name in ("append", "rewrite", "dump"):
        assert found[name]["ms"] > 0, name


@pytest.mark.lab
def test_the_startup_benchmark_tells_of_agents_and_of_srun(lab: Lab) -> None:
    found = document("startup", "--nodes", str(NODES), "--lab", lab.name)
    assert {"spawn_to_joined_s", "agent_rss_mb", "agent_cpu_s"} <= found.keys()
    assert {name: set(peer) for name, peer in found["peers"].items()} == {
        "srun_true": {"wall_s"},
        "srun_python": {"wall_s"},
    }


@pytest.mark.lab
def test_the_logs_benchmark_finds_every_line_whole_and_tells_what_they_cost(lab: Lab) -> None:
    found = document("logs", "--nodes", str(NODES), "--lines", "2000", "--lab", lab.name)
    assert found["lines"] == 2000 * NODES
    assert found["broken_lines"] == 0
    both = {"wall_s", "lines_per_s", "login_cpu_s", "nodes_cpu_s"}
    assert both <= found.keys()
    assert both <= found["peers"]["srun_l"].keys()


@pytest.mark.lab
def test_the_images_benchmark_brings_an_image_to_every_engine_and_counts_its_bytes() -> None:
    # The registry is no part of the lab, so that peer is not among these.
    peers = ["copy_load", "sbcast", "crude_chain"]
    made = Lab.up(name="benchtest-images", nodes=NODES, docker=True, rate="200mbit", fresh=True)
    try:
        size = ["--nodes", str(NODES), "--layers", "3", "--layer-mib", "1"]
        found = document("images", *size, "--lab", made.name, "--only", *peers)
    finally:
        made.down()
    assert list(found["peers"]) == peers
    for name, peer in found["peers"].items():
        assert {"wall_s", "last_byte_s", "source_bytes", "cpu_s_per_gb"} <= peer.keys()
        assert found["floor_s"] <= peer["last_byte_s"] <= peer["wall_s"]
        images_sent = peer["source_bytes"] // found["image_bytes"]
        assert images_sent == (1 if name == "crude_chain" else NODES)


@pytest.mark.local
def test_the_history_benchmark_tells_what_a_run_and_a_look_cost() -> None:
    found = document("history", "--rows", "10000")
    assert found["rows"] == 10_000
    ours = {"add_run_ms", "wal_add_run_ms", "add_rows_s", "list_ms", "model_ms", "node_ms", "summary_ms"}
    assert all(found[name] > 0 for name in ours)


@pytest.mark.local
@pytest.mark.skipif(library() is None, reason="this machine has no libzstd")
def test_the_links_benchmark_tells_what_packing_brings_on_each_and_what_it_costs() -> None:
    found = document("packed_links", "--links", "1000", "--megabytes", "4")
    for layer in ("python", "random"):
        cell = found["1000_mbit"][layer]
        assert cell["peers"].keys() == {"never", "always"}
        for way in (cell, *cell["peers"].values()):
            assert {"mb_per_s", "sent_part", "cpu_s_per_gb"} <= way.keys()
        assert cell["peers"]["never"]["sent_part"] >= 1
    assert found["1000_mbit"]["python"]["peers"]["always"]["sent_part"] < 0.5
