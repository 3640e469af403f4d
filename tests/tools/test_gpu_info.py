"""Power and memory of GPUs while a command runs, by programs that answer as AMD's and NVIDIA's do.

The answers are those of real machines, as their users posted them, cut to two GPUs.
"""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from .place import Place, tool

pytestmark = pytest.mark.local

AMD_POWER = [
    {"gpu": 0, "power": {"socket_power": {"value": 134, "unit": "W"}, "gfx_voltage": "N/A"}},
    {"gpu": 1, "power": {"socket_power": "N/A", "average_socket_power": "141 W"}},
]
AMD_VRAM = [
    {"gpu": 0, "mem_usage": {"total_vram": "N/A", "used_vram": {"value": 285, "unit": "MB"}}},
    {"gpu": 1, "mem_usage": {"total_vram": "N/A", "used_vram": "N/A"}},
]
ROCM_POWER = {
    "card0": {"Average Graphics Package Power (W)": "237.0", "Max Graphics Package Power (W)": "560.0"},
    "card1": {"Average Graphics Package Power (W)": "N/A (Secondary die)"},
    "card2": {"Current Socket Graphics Package Power (W)": "4.0"},
    "system": {"Driver version": "6.3.6"},
}
ROCM_VRAM = {"card0": {"VRAM Total Memory (B)": "25753026560", "VRAM Total Used Memory (B)": "27947008"}}
NVIDIA_POWER = "0, 71.42\n1, [N/A]\n"
WARNING = "WARNING: User is missing the following required groups: render\n"

#: Runs until the file has a header and three samples.
UNTIL_SAMPLED = 'until [ "$(wc -l <"$1" 2>/dev/null || echo 0)" -ge 4 ]; do sleep 0.02; done; exit 3'


def answers(place: Place, program: str, text: str) -> None:
    """A program that answers this, and keeps how it was asked."""
    (place.root / f"{program}.txt").write_text(text, encoding="utf-8")
    place.program(program, f'echo "$*" >>{place.root}/asked; cat {place.root}/{program}.txt')


def sampled(place: Place, kind: str, name: str, **env: str) -> list[dict[str, str]]:
    settings = {f"{kind}_OUTPUT_FILE": name, f"{kind}_SAMPLING_RATE": "0.01", **env}
    done = place.run(
        "python3", tool("gpu_info.py"), kind, "sh", "-c", UNTIL_SAMPLED, "sh", name, env=settings
    )
    assert done.returncode == 3, done.stderr
    assert f"samples of {len(rows_of(place, name)[0]) - 2} GPUs in {name}" in done.stderr
    return rows_of(place, name)


def rows_of(place: Place, name: str) -> list[dict[str, str]]:
    with (place.work / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name.startswith("gpu")}


@pytest.mark.parametrize(
    ("kind", "program", "text", "asked", "expected"),
    [
        (
            *("POWER", "amd-smi", WARNING + json.dumps(AMD_POWER), "metric --power --json"),
            {"gpu0_power_w": "134", "gpu1_power_w": "141"},
        ),
        (
            *("POWER", "amd-smi", json.dumps({"gpu_data": AMD_POWER}), "metric --power --json"),
            {"gpu0_power_w": "134", "gpu1_power_w": "141"},
        ),
        (
            *("VRAM", "amd-smi", json.dumps(AMD_VRAM), "metric --mem-usage --json"),
            {"gpu0_vram_mib": "285", "gpu1_vram_mib": ""},
        ),
        (
            *("POWER", "rocm-smi", WARNING + json.dumps(ROCM_POWER), "--showpower --json"),
            {"gpu0_power_w": "237", "gpu1_power_w": "", "gpu2_power_w": "4"},
        ),
        (
            *("VRAM", "rocm-smi", json.dumps(ROCM_VRAM), "--showmeminfo vram --json"),
            {"gpu0_vram_mib": "26.6523"},
        ),
        (
            *(
                "POWER",
                "nvidia-smi",
                NVIDIA_POWER,
                "--query-gpu=index,power.draw --format=csv,noheader,nounits",
            ),
            {"gpu0_power_w": "71.42", "gpu1_power_w": ""},
        ),
        (
            *("VRAM", "nvidia-smi", "0, 4\n", "--query-gpu=index,memory.used --format=csv,noheader,nounits"),
            {"gpu0_vram_mib": "4"},
        ),
    ],
    ids=lambda part: part if isinstance(part, str) and len(part) < 12 else "",
)
def test_each_tools_answer_becomes_a_row_in_watts_or_mebibytes(
    kind: str, program: str, text: str, asked: str, expected: dict[str, str], place: Place
) -> None:
    answers(place, program, text)
    rows = sampled(place, kind, "out.csv")
    assert len(rows) >= 3
    assert all(values(row) == expected for row in rows)
    assert (place.root / "asked").read_text(encoding="utf-8").splitlines()[0] == asked
    elapsed = [float(row["elapsed_s"]) for row in rows]
    assert elapsed == sorted(elapsed) and elapsed[0] >= 0
    assert float(rows[-1]["time_s"]) > 1.7e9


def test_a_tool_without_gpus_gives_way_to_the_next(place: Place) -> None:
    answers(place, "amd-smi", "[]")
    answers(place, "nvidia-smi", NVIDIA_POWER)
    assert values(sampled(place, "POWER", "out.csv")[0])["gpu0_power_w"] == "71.42"


def test_only_the_gpus_that_are_asked_for_have_a_column(place: Place) -> None:
    answers(place, "rocm-smi", json.dumps(ROCM_POWER))
    assert list(values(sampled(place, "POWER", "a.csv", POWER_DEVICE="1, 2")[0])) == [
        "gpu1_power_w",
        "gpu2_power_w",
    ]
    assert list(values(sampled(place, "POWER", "b.csv", POWER_DUAL_GCD="True")[0])) == [
        "gpu0_power_w",
        "gpu2_power_w",
    ]


def test_the_mode_may_be_another_than_the_names(place: Place) -> None:
    answers(place, "rocm-smi", json.dumps(ROCM_VRAM))
    assert list(values(sampled(place, "POWER", "out.csv", POWER_MODE="vram")[0])) == ["gpu0_vram_mib"]


def test_both_can_stand_around_one_command(place: Place) -> None:
    place.program("nvidia-smi", 'case $* in *power*) echo "0, 70" ;; *) echo "0, 4" ;; esac')
    for file in ("p.csv", "v.csv"):
        (place.work / file).touch()
    wait = 'until [ "$(wc -l <p.csv)" -ge 2 ] && [ "$(wc -l <v.csv)" -ge 2 ]; do sleep 0.02; done; echo done'
    done = place.run(
        *("python3", tool("gpu_info.py"), "VRAM", "python3", tool("gpu_info.py"), "POWER", "sh", "-c", wait),
        env={"POWER_OUTPUT_FILE": "p.csv", "VRAM_OUTPUT_FILE": "v.csv"},
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert values(rows_of(place, "p.csv")[0]) == {"gpu0_power_w": "70"}
    assert values(rows_of(place, "v.csv")[0]) == {"gpu0_vram_mib": "4"}


def test_a_tool_that_hangs_does_not_hold_the_command_up(place: Place) -> None:
    place.program("amd-smi", "touch asked; sleep 600")
    wait = "until [ -e asked ]; do sleep 0.02; done; exit 4"
    done = place.run("python3", tool("gpu_info.py"), "POWER", "sh", "-c", wait, timeout=8)
    assert done.returncode == 4
    assert "gpu_info: no sample was taken" in done.stderr


def test_a_tool_that_fails_is_told_once_and_the_command_goes_on(place: Place) -> None:
    count = place.root / "count"
    place.program("nvidia-smi", f"echo x >>{count}; echo 'Failed to initialize NVML: Unknown Error'; exit 9")
    wait = f'until [ "$(wc -l <{count} || echo 0)" -ge 8 ]; do sleep 0.02; done; exit 0'
    count.touch()
    done = place.run(
        *("python3", tool("gpu_info.py"), "POWER", "sh", "-c", wait), env={"POWER_SAMPLING_RATE": "0.01"}
    )
    assert done.returncode == 0
    words = "nvidia-smi ended with 9: Failed to initialize NVML: Unknown Error"
    assert done.stderr.splitlines() == [
        f"gpu_info: no values of the GPUs for now: {words}",
        f"gpu_info: no sample was taken: {words}",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_command_whose_end_is_ours(number: signal.Signals, place: Place) -> None:
    answers(place, "nvidia-smi", NVIDIA_POWER)
    name = number.name.removeprefix("SIG")
    wait = f"trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.02; done"
    process = place.start(["python3", tool("gpu_info.py"), "POWER", "sh", "-c", wait])
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (5, f"got {name}\n".encode())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_command_that_dies_by_a_signal_is_seen_to(number: signal.Signals, place: Place) -> None:
    answers(place, "nvidia-smi", NVIDIA_POWER)
    process = place.start(["python3", tool("gpu_info.py"), "POWER", "sh", "-c", f"kill -{int(number)} $$"])
    process.communicate(timeout=30)
    assert process.returncode == -number


def test_samples_stay_when_we_are_killed(place: Place) -> None:
    answers(place, "nvidia-smi", NVIDIA_POWER)
    wait = UNTIL_SAMPLED.replace("exit 3", 'echo "$$"; exec sleep 600')
    process = place.start(
        ["python3", tool("gpu_info.py"), "POWER", "sh", "-c", wait, "sh", "p.csv"],
        POWER_OUTPUT_FILE="p.csv",
        POWER_SAMPLING_RATE="0.01",
    )
    assert process.stdout is not None
    command = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=30)
    os.kill(command, signal.SIGKILL)
    process.communicate(timeout=30)
    assert len(rows_of(place, "p.csv")) >= 3


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {"POWER_SAMPLING_RATE": "fast"},
            "POWER_SAMPLING_RATE: expected seconds between two samples, found 'fast'",
        ),
        ({"POWER_SAMPLING_RATE": "0"}, "POWER_SAMPLING_RATE: expected seconds"),
        ({"POWER_SAMPLING_RATE": "nan"}, "POWER_SAMPLING_RATE: expected seconds"),
        ({"POWER_DEVICE": "first"}, "POWER_DEVICE: expected all, or numbers such as 0,1, found 'first'"),
        ({"POWER_MODE": "heat"}, "POWER_MODE: expected power or vram, found 'heat'"),
        (
            {"POWER_OUTPUT_FILE": "no/such/x.csv"},
            "POWER_OUTPUT_FILE: cannot write no/such/x.csv: No such file",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_command(
    env: dict[str, str], words: str, place: Place
) -> None:
    answers(place, "nvidia-smi", NVIDIA_POWER)
    done = place.run("python3", tool("gpu_info.py"), "POWER", "touch", "started", env=env)
    assert done.returncode == 2
    assert f"cannot sample GPUs: {words}" in done.stderr
    assert not (place.work / "started").exists()


def test_without_any_tool_it_says_which_it_looked_for(place: Place) -> None:
    done = place.run("python3", tool("gpu_info.py"), "POWER", "true", env={"PATH": str(place.programs)})
    assert done.returncode == 2
    assert "cannot sample GPUs: none of amd-smi, rocm-smi, nvidia-smi is here" in done.stderr


def test_the_gpus_of_a_node_are_sampled_by_its_first_rank(place: Place) -> None:
    answers(place, "nvidia-smi", NVIDIA_POWER)
    done = place.run("python3", tool("gpu_info.py"), "POWER", "sh", "-c", "exit 6", env={"LOCAL_RANK": "2"})
    assert (done.returncode, done.stderr) == (6, "")
    assert not list(Path(place.work).iterdir())


def test_a_command_that_is_not_there_ends_as_a_shell_says(place: Place) -> None:
    answers(place, "nvidia-smi", NVIDIA_POWER)
    done = place.run("python3", tool("gpu_info.py"), "POWER", "no-such-program")
    assert done.returncode == 127
    assert "cannot run no-such-program: No such file or directory" in done.stderr
