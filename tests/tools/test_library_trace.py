"""Calls of libraries out of what a command prints: their lines are counted, all others arrive as they were.

The lines are those of real runs, as users of the libraries posted them.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .place import Place, made, tool

pytestmark = pytest.mark.local

ROCBLAS = (
    "./rocblas-bench -f gemm_ex --transposeA N --transposeB N -m 12288 -n 1 -k 4096 --alpha 1 --a_type f16_r "
    "--lda 12288 --b_type f16_r --ldb 4096 --beta 0 --c_type f16_r --ldc 12288 --compute_type f32_r --algo 0"
)
HIPBLASLT = (
    "hipblaslt-bench --api_method c -m 4096 -n 4096 -k 4096 --lda 4096 --ldb 4096 --ldc 4096 --ldd 4096  "
    "--stride_a 0 --alpha 1.000000 --beta 0.000000 --transA T --transB T --batch_count 1 --a_type f16_r"
)
MIOPEN = (
    "MIOpen(HIP): Command [LogCmdConvolution] ./bin/MIOpenDriver convfp16 -n 32 -c 64 -H 256 -W 256 -k 64 "
    "-y 3 -x 3 -p 1 -q 1 -u 1 -v 1 -l 1 -j 1 --in_layout NHWC -m conv -g 1 -F 1 -t 1"
)
TENSILE = "Running kernel: Cijk_Ailk_Bljk_HHS_BH_MT128x128x128"
RCCL = (
    "hopper01:191370:191425 [1] NCCL INFO AllGather: opCount d sendbuff 0x7fa921200000 "
    "recvbuff 0x7fa915800000 count 2097152 datatype 7 op 0 root 0 comm 0x55fca23fc0f0 [nranks=2] "
    "stream 0x55fca193e8e0"
)
LINES = {
    "ROCBLAS_TRACE": ROCBLAS,
    "HIPBLASLT_TRACE": HIPBLASLT,
    "MIOPEN_TRACE": MIOPEN,
    "TENSILE_TRACE": TENSILE,
    "RCCL_TRACE": RCCL,
}
ROWS = {
    "ROCBLAS_TRACE": ["rocBLAS", "gemm_ex", ROCBLAS.removeprefix("./rocblas-bench ")],
    "HIPBLASLT_TRACE": ["hipBLASLt", "matmul", HIPBLASLT.removeprefix("hipblaslt-bench ")],
    "MIOPEN_TRACE": ["MIOpen", "convfp16", MIOPEN.split("convfp16 ")[1]],
    "TENSILE_TRACE": ["Tensile", "Cijk_Ailk_Bljk_HHS_BH_MT128x128x128", ""],
    "RCCL_TRACE": ["RCCL", "AllGather", "count 2097152 datatype 7 op 0 root 0 nranks 2"],
}
ALL = dict.fromkeys(LINES, "1")


def traced(place: Place, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return place.run("python3", tool("library_trace.py"), *argv, env=env)


def rows(place: Place, name: str = "library_trace.csv") -> list[list[str]]:
    with (place.work / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def printing(place: Place, text: str) -> tuple[str, ...]:
    """A command that prints a text to both of its outputs."""
    (place.root / "text").write_text(text, encoding="utf-8")
    return ("sh", "-c", "cat ../text; cat ../text >&2; exit 3")


@pytest.mark.parametrize("name", LINES)
def test_a_librarys_lines_are_counted_and_kept_back(name: str, place: Place) -> None:
    text = f"before\n{LINES[name]}\nperformance: 3.5 samples\n[rank1]: {LINES[name]}\nafter\n"
    done = traced(place, *printing(place, text), **{name: "1"})
    kept = "before\nperformance: 3.5 samples\nafter\n"
    assert (done.returncode, done.stdout) == (3, kept)
    assert done.stderr == kept + "library_trace: 1 kinds of calls in library_trace.csv\n"
    library, call, arguments = ROWS[name]
    assert rows(place) == [["library", "call", "times", "arguments"], [library, call, "4", arguments]]


def test_one_command_serves_all_libraries_the_most_frequent_first(place: Place) -> None:
    text = "\n".join([ROCBLAS, *[RCCL] * 3, *[MIOPEN] * 2, ""])
    traced(place, *printing(place, text), **ALL)
    assert [(row[0], row[2]) for row in rows(place)[1:]] == [("RCCL", "6"), ("MIOpen", "4"), ("rocBLAS", "2")]


def test_a_library_that_nobody_asked_for_is_only_text(place: Place) -> None:
    text = f"{ROCBLAS}\n{RCCL}\n"
    done = traced(place, *printing(place, text), RCCL_TRACE="1", ROCBLAS_TRACE="0")
    assert done.stdout == f"{ROCBLAS}\n"
    assert len(rows(place)) == 2


@pytest.mark.parametrize(
    "line",
    [
        f"I ran {ROCBLAS}",
        "rocblas-bench",
        "NCCL INFO Channel 00/02 :    0   1",
        "host:1:2 [0] NCCL WARN Call to ibv_modify_qp failed",
        "Running kernel: two words",
        "MIOpen(HIP): Warning [Prepare] Missing system database file",
    ],
)
def test_a_line_that_only_looks_alike_goes_on(line: str, place: Place) -> None:
    done = traced(place, *printing(place, f"{line}\n"), **ALL)
    assert done.stdout == f"{line}\n"
    assert rows(place) == [["library", "call", "times", "arguments"]]


def made_to_log(place: Place, asked: dict[str, str], **env: str) -> dict[str, str]:
    """The environment that the command has, of the libraries' variables."""
    program = "import os, json; print(json.dumps(dict(os.environ)))"
    done = traced(place, "python3", "-c", program, **asked, **env)
    found: dict[str, str] = json.loads(done.stdout)
    names = ("ROCBLAS_L", "HIPBLASLT_LOG", "MIOPEN", "TENSILE_DB", "NCCL")
    return {name: value for name, value in found.items() if name.startswith(names) and name not in ALL}


def test_the_libraries_are_told_to_log(place: Place) -> None:
    assert made_to_log(place, ALL) == {
        "ROCBLAS_LAYER": "2",
        "HIPBLASLT_LOG_MASK": "32",
        "MIOPEN_ENABLE_LOGGING_CMD": "1",
        "TENSILE_DB": "0x8000",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "COLL",
    }
    assert made_to_log(place, {"MIOPEN_TRACE": "1"}) == {"MIOPEN_ENABLE_LOGGING_CMD": "1"}


def test_what_a_user_has_set_is_added_to_and_where_logs_go_is_taken_back(place: Place) -> None:
    assert made_to_log(
        place,
        ALL,
        ROCBLAS_LAYER="1",
        ROCBLAS_LOG_PATH="x",
        ROCBLAS_LOG_BENCH_PATH="x",
        HIPBLASLT_LOG_MASK="1",
        HIPBLASLT_LOG_LEVEL="2",
        HIPBLASLT_LOG_FILE="x",
        TENSILE_DB="0x40",
        NCCL_DEBUG="INFO",
        NCCL_DEBUG_FILE="x",
    ) == {
        "ROCBLAS_LAYER": "3",
        "HIPBLASLT_LOG_MASK": "33",
        "MIOPEN_ENABLE_LOGGING_CMD": "1",
        "TENSILE_DB": "0x8040",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,BOOTSTRAP,ENV,COLL",
    }
    asked = {"RCCL_TRACE": "1"}
    assert made_to_log(place, asked, NCCL_DEBUG="TRACE", NCCL_DEBUG_SUBSYS="net") == {
        "NCCL_DEBUG": "TRACE",
        "NCCL_DEBUG_SUBSYS": "net,COLL",
    }
    assert made_to_log(place, asked, NCCL_DEBUG="WARN", NCCL_DEBUG_SUBSYS="ALL")["NCCL_DEBUG_SUBSYS"] == "ALL"


def test_without_a_library_to_trace_the_command_just_runs(place: Place) -> None:
    done = traced(place, "sh", "-c", "echo hello; exit 4")
    assert (done.returncode, done.stdout) == (4, "hello\n")
    assert "nothing is traced" in done.stderr
    assert not (place.work / "library_trace.csv").exists()


def test_ranks_of_one_node_have_a_file_each(place: Place) -> None:
    for local, rank, name in (("0", "4", "library_trace.csv"), ("1", "5", "rank5_library_trace.csv")):
        traced(place, *printing(place, f"{RCCL}\n"), RCCL_TRACE="1", LOCAL_RANK=local, RANK=rank)
        assert len(rows(place, name)) == 2


def test_a_line_that_is_not_ended_is_not_kept_waiting(place: Place) -> None:
    command = "printf 'continue? '; read answer; echo \"$answer\""
    process = subprocess.Popen(
        ["python3", tool("library_trace.py"), "sh", "-c", command],
        cwd=place.work,
        env=place.environ({"RCCL_TRACE": "1"}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.read(10) == b"continue? "
    out, _ = process.communicate(b"yes\n", timeout=30)
    assert (out, process.returncode) == (b"yes\n", 0)


def test_what_the_command_leaves_running_does_not_hold_it_up(place: Place) -> None:
    done = place.run(
        *("python3", tool("library_trace.py"), "sh", "-c", "sleep 600 & echo $!; exit 2"),
        env={"RCCL_TRACE": "1"},
        timeout=20,
    )
    subprocess.run(["kill", done.stdout.strip()], check=True)
    assert done.returncode == 2


def test_signals_reach_the_command_and_the_file_is_written(place: Place) -> None:
    (place.root / "text").write_text(f"{RCCL}\n", encoding="utf-8")
    wait = "trap 'exit 5' TERM; cat ../text; echo ready; while :; do sleep 0.02; done"
    process = place.start(["python3", tool("library_trace.py"), "sh", "-c", wait], RCCL_TRACE="1")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 5
    assert len(rows(place)) == 2


def test_nobody_listening_does_not_end_the_command(place: Place) -> None:
    command = "yes | head -c 1000000; touch finished"
    process = place.start(["python3", tool("library_trace.py"), "sh", "-c", command], RCCL_TRACE="1")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert (place.work / "finished").exists()


@settings(max_examples=25)
@given(st.binary(max_size=3000), st.lists(st.sampled_from([*LINES.values(), "x", ""]), max_size=20))
def test_bytes_that_are_no_calls_arrive_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, lines: list[str]
) -> None:
    place = made(tmp_path_factory.mktemp("place"))
    calls = [line for line in lines if line in LINES.values()]
    others = b"".join(line.encode() + b"\n" for line in lines if line not in LINES.values())
    (place.root / "text").write_bytes("".join(f"{line}\n" for line in lines).encode() + noise)
    done = subprocess.run(
        ["python3", tool("library_trace.py"), "cat", "../text"],
        cwd=place.work,
        env=place.environ(ALL),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    assert done.stdout == others + noise
    assert sum(int(row[2]) for row in rows(place)[1:]) == len(calls)
