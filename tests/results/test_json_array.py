"""A JSON array that several runs append to: whole after a full disk, a crash and another program's hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results import json_array
from phalanx.controller.results.json_array import JsonArrayError, append_records, line_of


def read(path: Path) -> Any:
    def no_constant(name: str) -> Any:
        raise AssertionError(name)

    return json.loads(path.read_text(), parse_constant=no_constant)


def test_records_are_appended_in_order_and_the_file_is_an_array_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    append_records(path, [{"n": 1}])
    assert read(path) == [{"n": 1}]
    append_records(path, [{"n": 2, "text": "]\n[\u2028"}, {"n": None}])
    assert read(path) == [{"n": 1}, {"n": 2, "text": "]\n[\u2028"}, {"n": None}]


def test_what_is_no_json_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_records(path, [{"n": float("nan")}])
    assert not path.exists()


def test_an_array_of_another_program_is_taken_over_and_its_nan_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for foreign in ('[\n  {\n    "n": NaN,\n    "m": Infinity\n  }\n]', '[{"n": NaN, "m": -Infinity}]\n'):
        path.write_text(foreign)
        append_records(path, [{"n": 2}])
        append_records(path, [{"n": 3}])
        assert read(path) == [{"n": None, "m": None}, {"n": 2}, {"n": 3}]
    path.write_text("[]")
    append_records(path, [{"n": 1}])
    assert read(path) == [{"n": 1}]


@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2]", "nothing", "[" * 100_000, "[\n{broken"])
def test_a_file_that_is_no_array_of_objects_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(JsonArrayError, match="move it away"):
        append_records(path, [{"n": 1}])
    assert path.read_text() == content


def test_a_huge_file_of_another_program_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "FOREIGN_LIMIT", 10)
    path = tmp_path / "a.json"
    path.write_text('[{"name": "longer than that"}]')
    with pytest.raises(JsonArrayError, match="another program wrote it"):
        append_records(path, [{"n": 1}])


RECORDS = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=30), max_size=3), min_size=1, max_size=4
)


@given(RECORDS, RECORDS, st.data())
def test_whatever_a_crash_left_of_an_append_the_earlier_records_and_the_next_are_there(
    tmp_path_factory: pytest.TempPathFactory, first: Any, torn: Any, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.json"
    append_records(path, first)
    size = path.stat().st_size
    append_records(path, torn)
    whole = path.read_bytes()
    left = whole[: data.draw(st.integers(size - 3, len(whole)))]
    path.write_bytes(left + b"\0" * data.draw(st.integers(0, 20)))
    append_records(path, [{"next": 1}])
    found = read(path)
    assert found[: len(first)] == first
    assert found[-1] == {"next": 1}
    assert found[len(first) : -1] == torn[: len(found) - len(first) - 1]


FULL = """
import resource, signal, sys
from pathlib import Path
from phalanx.controller.results.json_array import JsonArrayError, append_records
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50,) * 2)
try:
    append_records(path, [{"text": "x" * 100_000}])
except JsonArrayError as error:
    print(error)
"""


def test_a_record_that_does_not_fit_leaves_the_array_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    append_records(path, [{"n": 1}, {"n": 2}])
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert path.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from phalanx.controller.results.json_array import append_records
for number in range(25):
    append_records(Path(sys.argv[1]), [{"who": sys.argv[2], "n": number, "x": "y" * 3000}])
"""


def test_many_processes_append_at_once_and_no_record_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who)]) for who in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    found = [(one["who"], one["n"]) for one in read(path)]
    assert sorted(found) == sorted((str(who), n) for who in range(4) for n in range(25))


def test_an_append_does_not_read_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[\n" + b",\n".join([line_of({"n": 1})] * 10_000) + b"\n]\n")
    took: list[int] = []
    real = json_array.os.pread
    monkeypatch.setattr(json_array.os, "pread", lambda *asked: (took.append(asked[1]), real(*asked))[1])
    append_records(path, [{"n": 2}])
    assert sum(took) < 10
    monkeypatch.undo()
    assert len(read(path)) == 10_001
