"""Facts of this machine, and what becomes of them when tools hang, lie or are missing."""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from pathlib import Path

import pytest
from phalanx.agent.facts import bounded
from phalanx.agent.facts.addresses import (
    Bound,
    by_likelihood,
    default_interfaces,
    free_ports,
    ipv6_addresses,
    own_addresses,
)
from phalanx.agent.facts.amd import told_by_amd_tools
from phalanx.agent.facts.gather import gather
from phalanx.agent.facts.machine import disk, disk_places, memory
from phalanx.agent.facts.nvidia import told_by_nvidia_smi
from phalanx.protocol.messages import Engine, Facts
from phalanx.protocol.schema import compile_fields

NO_ENGINE = Engine("", "", "", "", "not asked yet")


def tool(directory: Path, name: str, script: str) -> None:
    """A program called ``name``."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_facts_of_this_machine_are_true_and_fit_the_wire(tmp_path: Path) -> None:
    facts = gather(tmp_path / "not" / "yet" / "there", NO_ENGINE)
    assert facts.hostname == socket.gethostname()
    assert facts.arch == platform.machine()
    assert facts.python == platform.python_version()
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.cpus_total >= facts.cpus
    assert facts.memory_bytes > facts.memory_free_bytes > 0
    assert {found.purpose for found in facts.disks} == {"spool", "tmp"}
    schema = compile_fields(Facts)
    assert schema.unpack(schema.pack(facts)) == facts


def test_a_tool_that_hangs_costs_its_own_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, "nvidia-smi", "exec sleep 600")
    tool(tmp_path, "amd-smi", """echo '[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X"}}]'""")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    started = time.monotonic()
    assert bounded.ask_tool(("nvidia-smi",), 0.2) == bounded.Answer(
        "", "nvidia-smi has not answered within 0.2 s"
    )
    assert time.monotonic() - started < 3
    monkeypatch.setattr("phalanx.agent.facts.gather._ALL_S", 1.0)
    facts = gather(tmp_path, NO_ENGINE)
    assert "AMD Instinct MI300X" in [gpu.model for gpu in facts.gpus]
    assert facts.memory_bytes > 0
    assert time.monotonic() - started < 5


def test_a_tool_that_is_not_there_or_fails_says_so_and_what_it_printed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bounded.ask_tool(("no-such-tool",)) == bounded.Answer("", "there is no no-such-tool", there=False)
    (tmp_path / "broken-tool").write_bytes(b"\x7fELF nothing")
    (tmp_path / "broken-tool").chmod(0o755)
    assert bounded.ask_tool(("broken-tool",)) == bounded.Answer("", "broken-tool: Exec format error")
    tool(tmp_path, "cut-tool", r"printf 'half \377'; kill -9 $$")
    assert bounded.ask_tool(("cut-tool",)) == bounded.Answer("half �", "cut-tool: half �")
    tool(tmp_path, "mute-tool", "exit 9")
    assert bounded.ask_tool(("mute-tool",)) == bounded.Answer("", "mute-tool: exit status 9")
    tool(tmp_path, "words-tool", "echo on; echo Driver/library version mismatch >&2; exit 18")
    assert bounded.ask_tool(("words-tool",)).complaint == "words-tool: Driver/library version mismatch"


def test_the_words_of_a_tool_are_those_that_are_no_data_and_what_was_raised_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    row = "0, NVIDIA H100 80GB HBM3, 00000000:19:00.0, 81559"
    lost = "Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost"
    tool(tmp_path, "nvidia-smi", f"echo '{row}'; echo '{lost}'; exit 15")
    told = told_by_nvidia_smi()
    assert (told.gpus[0].bus, told.complaint) == ("0000:19:00.0", f"nvidia-smi: {lost}")
    raised = (
        "echo 'Traceback (most recent call last):\n  File x\nAmdSmiException: not initialised' >&2; exit 1"
    )
    tool(tmp_path, "amd-smi", raised)
    assert told_by_amd_tools().complaint == "amd-smi: AmdSmiException: not initialised"
    tool(tmp_path, "amd-smi", "echo '['; exit 1")
    assert told_by_amd_tools().complaint == "amd-smi: exit status 1"


def test_a_tool_that_is_there_is_blamed_before_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told_by_amd_tools().complaint == "there is no amd-smi and no rocm-smi"
    tool(tmp_path, "rocm-smi", "echo Driver not initialized; exit 2")
    assert told_by_amd_tools().complaint == "rocm-smi: Driver not initialized"
    tool(tmp_path, "amd-smi", "exit 0")
    assert told_by_amd_tools().complaint == "amd-smi lists none"


def test_a_tool_of_a_drivers_own_folder_finds_the_libraries_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/own")
    for prefix in ("/usr/local/nvidia", "/opt/rocm-6.4.1"):
        found = bounded._environment(Path(f"{prefix}/bin/some-smi"))["LD_LIBRARY_PATH"]
        assert found == f"/own:{prefix}/lib64:{prefix}/lib"
    for place in ("/usr/bin", "/home/one/conda/bin"):
        assert bounded._environment(Path(place, "some-smi"))["LD_LIBRARY_PATH"] == "/own"


def test_a_reader_that_fails_or_never_returns_is_unknown_and_costs_no_other() -> None:
    never = threading.Event()

    def fails() -> str:
        raise ValueError("no")

    answers = bounded.all_within(
        0.3, {"good": lambda: "yes", "bad": fails, "stuck": lambda: str(never.wait())}, "unknown"
    )
    never.set()
    assert answers == {"good": "yes", "bad": "unknown", "stuck": "unknown"}


def test_meminfo_gives_total_and_available() -> None:
    text = "MemTotal:  24684092 kB\nMemFree:  1000 kB\nMemAvailable:   22000000 kB\nHugePages_Total: 0\n"
    assert memory(text) == (24684092 * 1024, 22000000 * 1024)
    assert memory("MemTotal: 5 kB\nMemFree: 3 kB\n") == (5120, 3072)
    assert memory("nonsense\nMemTotal: many kB\n") == (0, 0)


def test_disks_that_matter_are_those_of_spool_tmp_and_engine(tmp_path: Path) -> None:
    docker = Engine("docker", "27.0", "1.46", "overlay2")
    assert list(disk_places(tmp_path, docker)) == [
        ("spool", tmp_path),
        ("tmp", Path("/tmp")),
        ("engine", Path("/var/lib/docker")),
    ]
    found = disk("spool", tmp_path / "a" / "b")
    assert found is not None
    assert 0 < found.free_bytes <= found.total_bytes


def test_the_address_of_the_default_route_comes_first_and_bridges_last() -> None:
    bound = [
        Bound("docker0", "172.17.0.1"),
        Bound("lo", "127.0.0.1"),
        Bound("ib0", "10.1.0.5"),
        Bound("eth0", "192.0.2.2"),
        Bound("eth0", "fe80::1"),
        Bound("eth0", "fd00::2"),
        Bound("eth1", "169.254.3.4"),
        Bound("ib0", "10.1.0.5"),
        Bound("eth9", "nonsense"),
    ]
    assert by_likelihood(bound, frozenset({"eth0"})) == ("192.0.2.2", "fd00::2", "10.1.0.5", "172.17.0.1")


def test_default_routes_are_read_from_the_kernels_table() -> None:
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert default_interfaces(table) == {"eth0"}
    assert default_interfaces("") == frozenset()


def test_ipv6_addresses_are_read_from_the_kernels_table() -> None:
    table = (
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fd000000000000000000000000000002 04 40 00 80     eth0\n"
        "zz 04 40 00 80 eth0\n\n"
    )
    assert ipv6_addresses(table) == [Bound("lo", "::1"), Bound("eth0", "fd00::2")]


def test_own_addresses_can_be_bound() -> None:
    for address in own_addresses():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as server:
            server.bind((address, 0))


def test_a_port_that_someone_listens_on_is_passed_over() -> None:
    first, *more = free_ports()
    with socket.create_server(("", first)):
        assert first not in free_ports()
    assert {first, *more} <= set(range(29500, 29600))
    assert len({first, *more}) == 1 + len(more)
