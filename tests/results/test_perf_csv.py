"""perf.csv: appended by many at once, widened without loss, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.perf_csv import (
    COLUMNS,
    MOST_COLUMNS,
    TRIGGERS,
    PerfCsvError,
    append_rows,
    check_appendable,
    csv_bytes,
    guarded,
)
from phalanx.controller.results.summary_output import rows_in

from ..small_disk import read_only


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def row(model: str, **more: str) -> dict[str, str]:
    return {**dict.fromkeys(COLUMNS, ""), "model": model, "status": "SUCCESS", **more}


@pytest.fixture
def private() -> Iterator[None]:
    """What the controller makes is for its user alone."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_columns_are_madengines_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a", performance="-1.5")])
    assert path.read_text().splitlines()[0] == (
        "model,n_gpus,nnodes,gpus_per_node,training_precision,pipeline,args,tags,docker_file,base_docker,docker_sha,"
        "docker_image,git_commit,machine_name,deployment_type,launcher,gpu_architecture,performance,metric,"
        "relative_change,status,build_duration,test_duration,dataname,data_provider_type,data_size,"
        "data_download_duration,build_number,additional_docker_run_options"
    )
    assert rows_of(path)[0]["performance"] == "-1.5"


def test_new_columns_widen_the_file_and_keep_every_old_row(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a", args='x,"y"\nz')])
    append_rows(path, [row("b", ttft="0.5")])
    append_rows(path, [row("c")])
    found = rows_of(path)
    assert [(one["model"], one["ttft"]) for one in found] == [("a", ""), ("b", "0.5"), ("c", "")]
    assert found[0]["args"] == 'x,"y" z'
    assert [entry.name for entry in tmp_path.iterdir()] == ["perf.csv"]


def test_a_file_with_a_huge_cell_can_be_widened(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a", metric="x" * 200_000)])
    append_rows(path, [row("b", ttft="0.5")])
    assert path.read_text().splitlines()[2].endswith(",0.5")
    assert rows_in(str(path)) == 2
    assert csv.field_size_limit() < 200_000


@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_a_file_has_the_mode_that_its_user_wants_and_keeps_its_own(
    tmp_path: Path, private: None, umask: int
) -> None:
    fresh, old, plain = (tmp_path / name for name in ("fresh.csv", "old.csv", "plain.csv"))
    old.touch()
    old.chmod(0o664)
    for one in (row("a"), row("a", ttft="1")):
        append_rows(fresh, [one], mode=0o666 & ~umask)
        append_rows(old, [one], mode=0o666 & ~umask)
        append_rows(plain, [one])
        assert fresh.stat().st_mode & 0o777 == 0o666 & ~umask
        assert old.stat().st_mode & 0o777 == 0o664
        assert plain.stat().st_mode & 0o777 == 0o600


def test_rows_follow_the_order_of_a_header_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    path.write_text(
        "status,model,performance," + ",".join(set(COLUMNS) - {"status", "model", "performance"}) + "\n"
    )
    append_rows(path, [row("a", performance="1")])
    assert path.read_text().splitlines()[1].startswith("SUCCESS,a,1,")


def test_a_torn_last_line_does_not_swallow_the_next_row(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a")])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_rows(path, [row("b")])
    assert [one["model"] for one in rows_of(path)] == ["a", "b"]


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    for content in ("date,text\n1,2\n", "\nx\n"):
        path.write_text(content)
        with pytest.raises(PerfCsvError, match="it is no perf"):
            append_rows(path, [row("a")])
        assert path.read_text() == content


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "perf.csv"
    link.symlink_to(real)
    append_rows(link, [row("a")])
    append_rows(link, [row("b", extra="1")])
    assert link.is_symlink()
    assert len(rows_of(real)) == 2


def test_a_disk_that_is_full_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a")])
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for new in (row("b"), row("b", extra="1")):
        with pytest.raises(PerfCsvError, match="No space left on device"):
            append_rows(path, [new])
        assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["perf.csv"]


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(PerfCsvError, match=r"cannot write .*: No such file or directory"):
        append_rows(tmp_path / "no" / "perf.csv", [row("a")])


WRITER = """
import sys
from pathlib import Path
from phalanx.controller.results.perf_csv import COLUMNS, append_rows
who = sys.argv[2]
for number in range(25):
    row = {**dict.fromkeys(COLUMNS, ""), "model": f"{who}.{number}", "status": "SUCCESS"}
    if number % 10 == int(who):
        row[f"extra{who}.{number}"] = "x"
    append_rows(Path(sys.argv[1]), [row])
"""


def test_many_processes_append_and_widen_at_once_and_no_row_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who)]) for who in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    found = rows_of(path)
    assert sorted(one["model"] for one in found) == sorted(
        f"{who}.{n}" for who in range(4) for n in range(25)
    )
    assert all(None not in one for one in found)


def test_a_lock_that_is_not_given_up_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a")])
    hold = (
        "import fcntl,sys; file=open(sys.argv[1],'r+'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(PerfCsvError, match="another process holds its lock"):
            append_rows(path, [row("b")], wait_s=0.05)
    finally:
        holder.communicate(b"")
    append_rows(path, [row("b")])
    assert len(rows_of(path)) == 2


@pytest.mark.parametrize("cell", ["-1.5", "+3", "1e9", "-.5", "x", "", " -x", "'=1"])
def test_numbers_and_plain_text_stay_as_they_are(cell: str) -> None:
    assert guarded(cell) == cell


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", "\0=1", "\n=1", "--mib 4"]
)
def test_no_cell_begins_as_a_formula(cell: str) -> None:
    assert not guarded(cell).startswith(TRIGGERS)


@given(st.text(max_size=50))
def test_whatever_a_cell_holds_it_is_one_safe_cell_of_one_line(cell: str) -> None:
    safe = guarded(cell)
    assert "\n" not in safe
    assert "\r" not in safe
    if safe.startswith(TRIGGERS):
        float(safe)
    [read] = list(csv.reader([csv_bytes(["a", "b"], [{"a": cell, "b": "end"}], header=False).decode()]))
    assert read[1] == "end"


def test_a_file_whose_lines_end_as_on_windows_keeps_that(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    path.write_bytes((",".join(COLUMNS) + "\r\n" + "old" + "," * (len(COLUMNS) - 1) + "\r\n").encode())
    append_rows(path, [row("a")])
    append_rows(path, [row("b", extra="1")])
    append_rows(path, [row("c")])
    data = path.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 5
    assert [one["model"] for one in rows_of(path)] == ["old", "a", "b", "c"]


FULL = """
import resource, signal, sys
from pathlib import Path
from phalanx.controller.results.perf_csv import PerfCsvError, append_rows
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50,) * 2)
for row in ({"model": "x" * 100_000}, {"model": "x" * 100_000, "another": "1"}):
    try:
        append_rows(path, [row])
    except PerfCsvError as error:
        print(error)
"""


def test_a_write_that_is_cut_short_leaves_no_half_row(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a")])
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.count("File too large") == 2
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["perf.csv"]


def test_in_a_read_only_folder_nothing_changes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    append_rows(folder / "perf.csv", [row("a")])
    with read_only(folder), pytest.raises(PerfCsvError, match=r"cannot write .*/new.csv: "):
        append_rows(folder / "new.csv", [row("b")])
    with read_only(folder), pytest.raises(PerfCsvError, match=r"cannot write .*/perf.csv: "):
        append_rows(folder / "perf.csv", [row("b", another="1")])
    assert [one["model"] for one in rows_of(folder / "perf.csv")] == ["a"]
    assert [entry.name for entry in folder.iterdir()] == ["perf.csv"]


def test_columns_do_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row("a", **{f"x{number}": "1" for number in range(MOST_COLUMNS - len(COLUMNS))})])
    before = path.read_bytes()
    with pytest.raises(PerfCsvError, match="it would have 257 columns, 256 are the most"):
        append_rows(path, [row("b", another="1")])
    append_rows(path, [row("c", x1="2")])
    assert path.read_bytes().startswith(before)


def test_a_file_of_one_endless_line_is_no_perf_csv(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    path.write_bytes(b"model,performance,status," + b"x" * (2 * 1024 * 1024))
    with pytest.raises(PerfCsvError, match="its first line is no header"):
        append_rows(path, [row("a")])


def test_a_file_that_could_be_appended_to_passes_and_is_not_touched(tmp_path: Path) -> None:
    check_appendable(tmp_path / "new.csv")
    assert list(tmp_path.iterdir()) == []
    append_rows(tmp_path / "perf.csv", [row("a")])
    (tmp_path / "empty.csv").touch()
    before = (tmp_path / "perf.csv").read_bytes()
    for name in ("perf.csv", "empty.csv"):
        check_appendable(tmp_path / name)
    assert (tmp_path / "perf.csv").read_bytes() == before


def test_a_file_that_could_not_be_appended_to_is_known_before_there_are_rows(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "gone/x.csv": "there is no folder",
        "other.csv": "it is no perf.csv, which has model",
        "other.csv/x.csv": "Not a directory",
        "folder": "it is a folder",
        "pipe": "not a regular file",
    }.items():
        with pytest.raises(PerfCsvError, match=words):
            check_appendable(tmp_path / name)
    with read_only(tmp_path / "folder"), pytest.raises(PerfCsvError, match="is not to be written to"):
        check_appendable(tmp_path / "folder" / "perf.csv")
