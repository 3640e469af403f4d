"""What a container is, as a CSV: in every shell, with or without the programs that would know more."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time

import pytest

from .place import SHELLS, Place, shell

pytestmark = pytest.mark.local

SCRIPT = "../scripts/common/pre_scripts/run_rocenv_tool.sh"
#: Two agents of ``rocminfo`` as it prints them, cut to the lines around the names.
ROCMINFO = """\
*******
Agent 1
*******
  Name:                    AMD EPYC 9654 96-Core Processor
  Marketing Name:          AMD EPYC 9654 96-Core Processor
  Device Type:             CPU
*******
Agent 2
*******
  Name:                    gfx942
  Uuid:                    GPU-2dbd1a8b3fd4ec12
  Marketing Name:          AMD Instinct MI300X
  Device Type:             GPU
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-
*** Done ***
"""
#: Programs that a bare system has; everything else is not there.
BARE = ("sh", "bash", "busybox", "cat", "date", "rm", "mv", "tr", "sed", "env", "sleep", "uname", "kill")


def details(
    place: Place, *words: str, by: str = "bash", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return place.run(*shell(by), SCRIPT, *words, env=env, timeout=30)


def rows(place: Place, name: str = "m_env") -> list[tuple[str, str, str]]:
    with (place.work / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["section", "name", "value"]
    assert all(len(row) == 3 for row in found)
    return [(row[0], row[1], row[2]) for row in found]


def bare(place: Place) -> dict[str, str]:
    """A PATH with nothing but the smallest of systems and what the place has."""
    for name in BARE:
        found = shutil.which(name)
        if found and not (place.programs / name).exists():
            (place.programs / name).symlink_to(found)
    (place.programs / "python3").unlink(missing_ok=True)
    return {"PATH": str(place.programs)}


@pytest.mark.parametrize("by", SHELLS)
@pytest.mark.parametrize("mode", ["lite", "full"])
def test_every_shell_writes_the_same_sections(by: str, mode: str, place: Place) -> None:
    done = details(place, "m_env", mode, "UBUNTU", by=by)
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(place)
    assert {"rocenv", "os", "kernel", "cpu", "memory", "gpu", "env"} <= {row[0] for row in found}
    assert ("rocenv", "mode", mode) in found
    assert ("rocenv", "guest_os", "UBUNTU") in found
    assert [path.name for path in place.work.iterdir()] == ["m_env.csv"]


@pytest.mark.parametrize("by", SHELLS)
def test_a_bare_system_is_described_without_a_complaint(by: str, place: Place) -> None:
    done = details(place, "m_env", "lite", by=by, env=bare(place))
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(place)
    assert ("gpu", "rocminfo", "not found") in found
    assert ("gpu", "nvidia-smi", "not found") in found
    assert any(row[:2] == ("kernel", "uname") and row[2].startswith("Linux") for row in found)


def test_gpus_are_printed_for_readers_of_logs_and_named_in_rows(place: Place) -> None:
    (place.root / "rocminfo.txt").write_text(ROCMINFO, encoding="utf-8")
    place.program("rocminfo", f"cat {place.root}/rocminfo.txt")
    place.program("nvidia-smi", "echo '0, NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15'")
    done = details(place, "m_env", "lite", "UBUNTU")
    assert done.stdout.splitlines() == ["Name : gfx942", "rocenv: m_env.csv (lite)"]
    gpus = [row[1:] for row in rows(place) if row[0] == "gpu"]
    assert gpus == [
        ("Marketing Name", "AMD EPYC 9654 96-Core Processor"),
        ("Name", "gfx942"),
        ("Marketing Name", "AMD Instinct MI300X"),
        ("nvidia 0", "NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15"),
    ]


def test_secrets_are_left_out_whatever_they_look_like(place: Place) -> None:
    secret = "s3cr3t-value"
    env = {
        "MAD_SECRETS_HFTOKEN": secret,
        "NCCL_AUTH": secret,
        "ROCM_API_KEY": secret,
        "VLLM_PASSWORD": secret,
        "HIP_LICENSE": secret,
        "HF_TOKEN": secret,
        "ANYTHING": secret,
        "ROCM_REPO": f"https://user:{secret}@host/path",
        "NCCL_FIRST": f"x\nNCCL_SECOND={secret}",
        "NCCL_DEBUG": "INFO",
    }
    for mode in ("lite", "full"):
        details(place, "m_env", mode, "", "HIP_LICENSE", env=env)
        assert secret not in (place.work / "m_env.csv").read_text(encoding="utf-8")
        found = [row[1:] for row in rows(place) if row[0] == "env"]
        assert ("NCCL_DEBUG", "INFO") in found
        assert ("ROCM_REPO", "left out: it holds a password") in found
        assert ("NCCL_FIRST", "left out: it has several lines") in found
        assert "NCCL_SECOND" not in [name for name, _ in found]


def test_a_value_with_quotes_commas_and_control_characters_stays_one_field(place: Place) -> None:
    value = 'a "quoted", value\twith\x1b[31m $(id) `id` ; *'
    details(place, "m_env", "lite", env={"NCCL_X": value})
    assert ("env", "NCCL_X", value.replace("\x1b", "")) in rows(place)


@pytest.mark.parametrize(("by", "with_timeout"), [*((by, False) for by in SHELLS), (SHELLS[-1], True)])
def test_programs_that_hang_cost_seconds_and_are_named(by: str, with_timeout: bool, place: Place) -> None:
    env = bare(place)
    if with_timeout:
        (place.programs / "timeout").symlink_to(str(shutil.which("timeout")))
    for program in ("rocminfo", "nvidia-smi", "hipconfig", "dpkg-query"):
        place.program(program, "exec sleep 300")
    started = time.monotonic()
    done = details(place, "m_env", "lite", by=by, env=env)
    assert time.monotonic() - started < 15
    assert done.returncode == 0
    found = rows(place)
    assert ("gpu", "rocminfo", "no answer within 2 s") in found
    assert ("packages", "dpkg-query", "not asked: no time left") in found


def test_a_program_that_fails_is_named_with_its_status(place: Place) -> None:
    place.program("rocminfo", "echo 'ROCk module is NOT loaded'; exit 5")
    assert details(place, "m_env").returncode == 0
    assert ("gpu", "rocminfo", "ended with 5") in rows(place)


def test_key_packages_are_enough_for_lite(place: Place) -> None:
    env = bare(place)
    place.program("dpkg-query", "echo 'rocblas 4.2.0'; echo 'libc6 2.36'; echo 'Torch 2.4'")
    for mode, names in (("lite", ["rocblas", "Torch"]), ("full", ["rocblas", "libc6", "Torch"])):
        details(place, "m_env", mode, env=env)
        assert [row[1] for row in rows(place) if row[0] == "packages"] == names


def test_an_unknown_mode_is_lite_and_said(place: Place) -> None:
    done = details(place, "m_env", "deep")
    assert "rocenv: 'deep' is neither lite nor full; lite is taken" in done.stderr
    assert ("rocenv", "mode", "lite") in rows(place)


def test_a_name_stays_in_the_models_folder(place: Place) -> None:
    details(place, "../../x_env", "lite")
    assert (place.work / "x_env.csv").exists()


@pytest.mark.parametrize("missing", ["sed", "tr"])
def test_where_it_cannot_be_written_the_model_runs_all_the_same(missing: str, place: Place) -> None:
    env = bare(place)
    (place.programs / missing).unlink()
    done = details(place, "m_env", "lite", env=env)
    assert done.returncode == 0
    assert "rocenv: cannot write m_env.csv: sed, tr or room is missing" in done.stderr
    assert not list(place.work.iterdir())


def test_a_folder_that_takes_no_files_is_said(place: Place) -> None:
    (place.work / "m_env.csv.part").mkdir()
    done = details(place, "m_env", "lite")
    assert done.returncode == 0
    assert "rocenv: cannot write m_env.csv here" in done.stderr
