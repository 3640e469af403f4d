"""What every runtime promises, proved on each of them with real processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from pathlib import Path

import pytest
from phalanx.agent.lease import boottime
from phalanx.agent.runtimes.base import Running, RuntimeUnavailable
from phalanx.protocol.messages import Cause, Limits, Ulimit

from tests.runtimes.cases import Bench, running, text


async def test_a_command_runs_and_its_output_is_in_the_files(bench: Bench) -> None:
    place = await bench.open()
    ended, out, err = await bench.shell(place, "echo to out; echo to err >&2")
    assert (ended.status, ended.cause, out, err) == (0, Cause.EXITED, "to out\n", "to err\n")


async def test_the_exit_status_is_the_command_s_own(bench: Bench) -> None:
    place = await bench.open()
    ended, _, _ = await bench.shell(place, "exit 7")
    assert (ended.status, ended.cause) == (7, Cause.EXITED)
    ended, _, _ = await bench.shell(place, "exit 137")
    assert (ended.status, ended.cause) == (137, Cause.EXITED)


async def test_a_signal_is_told_from_an_exit_status_of_the_same_number(bench: Bench) -> None:
    place = await bench.open()
    for number in (9, 11, 15):
        ended, _, _ = await bench.shell(place, f"kill -{number} $$")
        assert (ended.status, ended.cause) == (128 + number, Cause.SIGNALED)


async def test_an_unknown_command_was_never_started(bench: Bench) -> None:
    place = await bench.open()
    ended, _, _ = await bench.run(place, "no-such-command", "x")
    assert (ended.status, ended.cause) == (127, Cause.NOT_STARTED)
    assert "not found: no-such-command" in ended.detail


async def test_a_file_that_is_not_executable_was_never_started(bench: Bench) -> None:
    place = await bench.open()
    ended, _, _ = await bench.run(place, "/etc/passwd")
    assert (ended.status, ended.cause) == (126, Cause.NOT_STARTED)
    assert "/etc/passwd" in ended.detail


async def test_a_script_runs_by_its_interpreter_from_the_working_directory(bench: Bench) -> None:
    place = await bench.open()
    script = bench.places().work / "run.sh"
    script.write_text("#!/bin/sh\necho in $1\n")
    script.chmod(0o755)
    ended, out, _ = await bench.run(place, "./run.sh", "work")
    assert (ended.status, out) == (0, "in work\n")


async def test_words_reach_the_command_unchanged(bench: Bench) -> None:
    place = await bench.open()
    words = ("a b", "it's", '"$HOME"', "`id`", "*", "", "back\\slash", "new\nline", "ünï")
    ended, out, _ = await bench.run(place, "printf", "<%s>", *words)
    assert ended.status == 0
    assert out == "".join(f"<{word}>" for word in words)


async def test_the_environment_is_case_then_step_then_rank_then_secrets(bench: Bench) -> None:
    place = await bench.open(env={"A": "case", "B": "case", "C": "case", "D": "case"})
    ended, out, _ = await bench.shell(
        place,
        'echo "$A $B $C $D"',
        step_env={"B": "step", "C": "step", "D": "step"},
        env={"C": "rank", "D": "rank"},
        secrets={"D": "secret"},
    )
    assert (ended.status, out) == (0, "case step rank secret\n")


async def test_values_and_names_of_every_kind_reach_the_environment(bench: Bench) -> None:
    place = await bench.open()
    odd = {
        "QUOTES": 'it\'s "$x" `y`',
        "LINES": "a\nb\n",
        "dir": "D",
        "phx": "P",
        "with.dot": "dot",
        "UID": "77",
    }
    ended, out, _ = await bench.run(place, "env", env=odd)
    assert ended.status == 0
    for name, value in odd.items():
        assert f"{name}={value}\n" in out


async def test_a_builtin_of_a_shell_never_stands_in_for_a_command(bench: Bench) -> None:
    place = await bench.open()
    ended, _, _ = await bench.run(place, "exit", "3")
    assert (ended.status, ended.cause) == (127, Cause.NOT_STARTED)


async def test_stdin_is_empty(bench: Bench) -> None:
    place = await bench.open()
    ended, out, _ = await bench.run(place, "cat")
    assert (ended.status, out) == (0, "")


async def test_two_ranks_run_side_by_side_in_one_place(bench: Bench) -> None:
    place = await bench.open()
    fifo = bench.places().work / "meeting"
    os.mkfifo(fifo, 0o666)
    reader = await bench.start(place, "cat", "meeting", rank=0)
    writer = await bench.start(place, "sh", "-c", "echo hello >meeting", rank=1)
    assert (await writer.wait()).status == 0
    assert (await reader.wait()).status == 0
    assert text(reader, "out") == "hello\n"


async def test_all_output_is_in_the_files_when_wait_returns(bench: Bench) -> None:
    place = await bench.open()
    for _ in range(3):
        ended, out, _ = await bench.shell(place, "seq 20000")
        assert ended.status == 0
        assert out.endswith("\n20000\n")


async def test_a_gibibyte_of_output_hangs_nothing(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "head", "-c", str(1 << 30), "/dev/zero")
    ended = await asyncio.wait_for(step.wait(), 120)
    out = step.directory / "out"
    assert (ended.status, out.stat().st_size) == (0, 1 << 30)
    digest = hashlib.file_digest(out.open("rb"), "sha256").hexdigest()
    assert digest == "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14"
    out.unlink()


async def test_a_polite_command_is_stopped_by_term(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(
        place, "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    )
    await _says(step, "up")
    started = time.monotonic()
    await step.stop(20)
    ended = await step.wait()
    assert (ended.status, ended.cause) == (3, Cause.STOPPED)
    assert text(step, "out") == "up\nbye\n"
    assert time.monotonic() - started < 5


async def test_a_stubborn_command_is_killed_after_its_grace_with_all_its_children(bench: Bench) -> None:
    place = await bench.open()
    script = (
        "trap '' TERM; setsid sh -c \"trap '' TERM; echo up; sleep 300\" & (sleep 301 &) ; wait; sleep 302"
    )
    step = await bench.start(place, "sh", "-c", script)
    await _says(step, "up")
    started = time.monotonic()
    await step.stop(1)
    ended = await step.wait()
    took = time.monotonic() - started
    assert (ended.status, ended.cause) == (137, Cause.STOPPED)
    assert 0.9 < took < 6
    assert "sleep 30" not in (await place.diagnose())


async def test_stopping_one_rank_leaves_the_other_alone(bench: Bench) -> None:
    place = await bench.open()
    first = await bench.start(place, "sleep", "300", rank=0)
    second = await bench.start(place, "sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; echo went", rank=1)
    await first.stop(5)
    assert (await first.wait()).cause is Cause.STOPPED
    (bench.places().work / "go").touch()
    ended = await second.wait()
    assert (ended.status, ended.cause, text(second, "out")) == (0, Cause.EXITED, "went\n")


async def test_stopping_what_has_ended_changes_nothing(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "true")
    await step.wait()
    await step.stop(0)
    assert (await step.wait()).cause is Cause.EXITED


async def test_a_command_that_signals_its_own_group_still_has_a_status(bench: Bench) -> None:
    place = await bench.open()
    ended, _, _ = await bench.shell(place, "trap 'exit 5' TERM; kill -TERM 0; sleep 5")
    assert ended.status == 5


async def test_closing_ends_everything_that_a_step_left_behind(bench: Bench) -> None:
    place = await bench.open()
    await bench.shell(place, "setsid sleep 302 >/dev/null 2>&1 & exit 0")
    assert "sleep 302" in await place.diagnose()
    await place.close(1)
    assert not running("sleep 302")


async def test_an_unrenewed_lease_ends_the_processes(bench: Bench) -> None:
    place = await bench.open(lease_s=3)
    step = await bench.start(place, "sh", "-c", "setsid sleep 303 & sleep 304")
    opened = time.monotonic()
    ended = await asyncio.wait_for(step.wait(), 20)
    assert time.monotonic() - opened < 3 + 2 + 1
    assert ended.cause is Cause.STOPPED
    assert "lease" in ended.detail
    await _gone("sleep 303", 2)


async def test_a_renewed_lease_lets_them_go_on(bench: Bench) -> None:
    place = await bench.open(lease_s=2)
    place.lease.renew(boottime() + 60)
    ended, out, _ = await bench.shell(place, "sleep 4; echo still here")
    assert (ended.status, out) == (0, "still here\n")


async def test_a_file_of_the_node_has_a_path_for_the_workload(bench: Bench) -> None:
    place = await bench.open()
    path = bench.places().results / "rows.csv"
    ended, _, _ = await bench.run(place, "sh", "-c", 'echo a,b >"$1"', "sh", place.inside(path))
    assert ended.status == 0
    assert path.read_text() == "a,b\n"


async def test_diagnostics_show_processes_memory_sockets_and_the_ends_of_output(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "sh", "-c", "echo last words; exec sleep 305")
    await _says(step, "last words")
    report = await place.diagnose()
    for part in ("sleep 305", "MemAvailable", "== sockets", "last words", "== kernel"):
        assert part in report
    assert len(report.encode()) <= 256 * 1024
    await step.stop(0)


async def test_the_spool_is_closed_to_other_users(bench: Bench) -> None:
    place = await bench.open()
    step = await bench.start(place, "true")
    await step.wait()
    for path in (step.directory, step.directory.parent):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert not (step.directory / "env").exists()


async def test_a_limit_that_cannot_be_had_is_named_with_what_the_node_allows(bench: Bench) -> None:
    if _has_sys_resource():
        pytest.skip("this user may raise every limit")
    with pytest.raises(RuntimeUnavailable) as caught:
        await bench.open(limits=Limits(ulimits=(Ulimit("memlock", -1, -1),)))
    assert "memlock" in str(caught.value)
    assert "hard limit" in str(caught.value)


async def test_a_limit_that_can_be_had_is_set(bench: Bench) -> None:
    place = await bench.open(limits=Limits(ulimits=(Ulimit("nofile", 100, 200),)))
    _, out, _ = await bench.shell(place, "ulimit -Sn; ulimit -Hn")
    soft, hard = out.split()
    assert hard == "200"
    if not os.environ.get("PHALANX_TEST_DOCKER_HOST"):  # podman 4.3 makes the soft limit the hard one
        assert soft == "100"


@pytest.mark.docker
async def test_memory_that_runs_out_is_named(docker: Bench) -> None:
    place = await docker.open(limits=Limits(memory_bytes=64 << 20))
    # tail keeps all that it reads, for there is no newline in it
    ended, _, _ = await docker.shell(place, "tail -n 1 /dev/zero >/dev/null; exit $?")
    assert ended.status == 137 or ended.cause is Cause.OOM
    ended, _, _ = await docker.run(place, "tail", "-n", "1", "/dev/zero")
    assert (ended.status, ended.cause) == (137, Cause.OOM)
    assert "64 MiB" in ended.detail
    ended, out, _ = await docker.shell(place, "echo alive")
    assert (ended.status, ended.cause, out) == (0, Cause.EXITED, "alive\n")


async def _says(step: Running, words: str) -> None:
    async with asyncio.timeout(10):
        while words not in text(step, "out"):
            await asyncio.sleep(0.02)


async def _gone(command: str, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while running(command):
            await asyncio.sleep(0.05)


def _has_sys_resource() -> bool:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("CapEff"))
    return bool(int(line.split()[1], 16) & (1 << 24))
