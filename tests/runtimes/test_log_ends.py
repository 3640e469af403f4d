"""Ends of logs that a workload wrote beside its output, whatever else it put there."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from phalanx.agent.runtimes import diagnostics, log_ends
from phalanx.agent.runtimes.log_ends import LogFolder
from phalanx.protocol.messages import Cause, Limits, Mount

from tests.runtimes.cases import Bench


def ends(folder: Path, below: str = "") -> str:
    return log_ends.log_ends(LogFolder("x", folder, below))


def write(path: Path, content: str, *, age_s: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_logs_come_newest_first_with_their_size_and_age(tmp_path: Path) -> None:
    write(tmp_path / "server.log", "loading\nno space left\n", age_s=50)
    write(tmp_path / "deep" / "er" / "router.err", "refused\n", age_s=5)
    write(tmp_path / "ranks" / "rank0.out", "ready\n", age_s=500)
    write(tmp_path / "notes.txt", "not a log\n")
    write(tmp_path / "empty.log", "")
    assert ends(tmp_path).splitlines() == [
        "-- deep/er/router.err (8 bytes, written 5 s ago)",
        "refused",
        "-- server.log (22 bytes, written 50 s ago)",
        "loading",
        "no space left",
        "-- ranks/rank0.out (6 bytes, written 500 s ago)",
        "ready",
    ]


def test_a_folder_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert ends(tmp_path, "run_logs") == ""
    assert ends(tmp_path / "gone") == ""


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside" / "secret.log", "canary\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file.log").symlink_to(secret)
    (inside / "folder").symlink_to(secret.parent)
    (inside / "run_logs").symlink_to(secret.parent)
    assert ends(inside) == ""
    with pytest.raises(OSError, match=r"run_logs|Not a directory|Too many levels"):
        ends(inside, "run_logs")
    os.link(secret, inside / "hard.log")  # a name of the same file, as whoever may read it can make one
    assert "canary" in ends(inside)


def test_a_file_that_becomes_a_link_after_it_was_found_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = write(tmp_path / "secret.log", "canary\n")
    log = write(tmp_path / "inside" / "sub" / "one.log", "mine\n")
    real = log_ends.open_beneath

    def swapped(folder: Path, name: str) -> int:
        log.unlink(missing_ok=True)
        log.parent.rmdir()
        log.parent.symlink_to(secret.parent)
        write(tmp_path / "one.log", "canary\n")
        return real(folder, name)

    monkeypatch.setattr(log_ends, "open_beneath", swapped)
    found = ends(tmp_path / "inside")
    assert "canary" not in found
    assert "sub/one.log" in found
    assert "(not readable: " in found


def test_what_would_hang_or_flood_is_passed_over_or_cut(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.log")
    with (tmp_path / "huge.log").open("wb") as huge:
        huge.seek(1 << 40)
        huge.write(b"\nthe end\n")
    write(tmp_path / "long.log", "x" * 1_000_000)
    write(tmp_path / "lines.log", "\n" * 1_000_000 + "last\n")
    (tmp_path / "bytes.log").write_bytes(bytes(range(256)) * 40)
    began = time.monotonic()
    found = ends(tmp_path)
    assert time.monotonic() - began < 5
    assert "fifo" not in found
    assert "the end" in found
    assert "last" in found
    assert len(found) < 5 * (4 * log_ends.TAIL_BYTES + 200)


def test_of_thousands_of_files_the_newest_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    for number in range(2000):
        write(tmp_path / f"{number}.log", f"of {number}\n", age_s=number)
    found = ends(tmp_path)
    assert found.count("-- ") == log_ends.MOST_FILES
    assert "of 0\n" in found
    assert f"of {log_ends.MOST_FILES}\n" not in found
    assert found.endswith(f"... and {2000 - log_ends.MOST_FILES} more log files\n")


def test_entries_and_depth_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path
    for _ in range(log_ends.MOST_DEPTH + 3):
        deep = deep / "d"
    write(deep / "lost.log", "lost\n")
    write(tmp_path / "d" / "found.log", "found\n")
    write(tmp_path / ".cache" / "hidden.log", "hidden\n")
    found = ends(tmp_path)
    assert "found" in found
    assert "lost" not in found
    assert "hidden" not in found
    monkeypatch.setattr(log_ends, "MOST_ENTRIES", 20)
    for number in range(50):
        write(tmp_path / f"{number}.log", "x\n")
    assert ends(tmp_path).endswith("... only the first 20 entries were looked at\n")


def test_a_name_is_shown_on_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a\n== processes ==\x1b[2J.log", "x\n")
    assert ends(tmp_path).startswith("-- a?== processes ==?[2J.log (2 bytes")


def test_a_folder_that_cannot_be_read_is_said_and_the_other_sections_are_there(tmp_path: Path) -> None:
    (tmp_path / "run_logs").symlink_to("/etc")
    text = diagnostics.report([os.getpid()], tmp_path, [LogFolder("/run_logs", tmp_path, "run_logs")])
    assert "== ends of logs in /run_logs ==\n(not available: " in text
    assert "== processes ==" in text


async def test_logs_of_the_model_s_folder_are_in_the_diagnostics(bench: Bench) -> None:
    place = await bench.open()
    work = bench.places().work
    write(work / "model" / "vllm.log", "engine core died\n")
    (work / "model" / "passwd.log").symlink_to("/etc/passwd")
    report = await place.diagnose()
    section = report.partition("== ends of logs in the model's folder ==\n")[2].partition("\n== ")[0]
    assert "-- model/vllm.log (17 bytes" in section
    assert "engine core died" in section
    assert "passwd" not in section


@pytest.mark.docker
async def test_run_logs_of_a_container_are_in_the_diagnostics_and_no_link_of_it_leads_to_the_node(
    docker: Bench, tmp_path: Path
) -> None:
    write(tmp_path / "canary.log", "canary\n")
    place = await docker.open()
    script = (
        "mkdir -p /run_logs/node0; echo prefill is gone >/run_logs/node0/prefill.err; "
        f"printf x >/run_logs/other.txt; touch /tmp/x; mkfifo /run_logs/f.log; echo {tmp_path}"
    )
    await docker.shell(place, script)
    section = _run_logs(await place.diagnose())
    assert section.startswith("-- node0/prefill.err (16 bytes")
    assert "prefill is gone" in section
    await docker.shell(place, "rm -r /run_logs")
    assert _run_logs(await place.diagnose()).startswith("(none)")
    pid = place.life.pid  # type: ignore[attr-defined]
    await asyncio.to_thread((Path(f"/proc/{pid}/root") / "run_logs").symlink_to, tmp_path)
    section = _run_logs(await place.diagnose())
    assert "canary" not in section
    assert section.startswith("(not available: ")


@pytest.mark.docker
async def test_run_logs_that_are_mounted_are_read_when_the_container_is_gone(
    docker: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    place = await docker.open(mounts=(Mount(str(folder), "/run_logs"),))
    await docker.shell(place, "echo last of decode >/run_logs/decode.log")
    await place.close(0)
    assert "last of decode" in _run_logs(await place.diagnose())


@pytest.mark.docker
async def test_diagnostics_after_an_oom_kill_name_the_limit(docker: Bench) -> None:
    place = await docker.open(limits=Limits(memory_bytes=64 << 20))
    ended, _, _ = await docker.run(place, "tail", "-n", "1", "/dev/zero")
    assert ended.cause is Cause.OOM
    assert "memory limit of 64 MiB" in ended.detail
    report = await place.diagnose()
    assert (
        "== memory of the container ==\nlimit 64 MiB, 1 processes killed by the kernel for memory" in report
    )


def _run_logs(report: str) -> str:
    return report.partition("== ends of logs in /run_logs ==\n")[2]
