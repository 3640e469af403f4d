"""Baselines as files: read strictly, written the same for the same values, made from rows."""

from __future__ import annotations

import json
import re
import stat
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.results.baseline import (
    IDENTITY,
    Baseline,
    Identity,
    Measured,
    compare,
    measured,
    regressions,
)
from phalanx.controller.results.baseline_file import (
    from_json,
    known_baselines,
    load,
    name_of,
    place_of,
    save,
    to_document,
)
from phalanx.controller.results.baseline_making import Wishes, make, rows_of_csv, wishes_of
from phalanx.controller.results.direction import Direction
from phalanx.controller.results.perf_csv import append_rows
from phalanx.controller.workflow.errors import InputError

from tests.source import ROOT

from .entries import row

M = Identity("m", "tok/s", "2", "16", "torchrun", "gfx942", "fp8")
MADE = ("2026-11-22T02:01:24.000Z", "20261122-020124-r-0001")


def document(**change: Any) -> bytes:
    """A sound file, but for the change."""
    whole = {"schema": 1, "name": "main", "measurements": [{"model": "m", "metric": "tok/s", "value": 1861}]}
    return json.dumps({**whole, **change}).encode()


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    st.dictionaries(
        st.builds(Identity, CELLS.filter(bool), *[CELLS] * (len(IDENTITY) - 1)),
        st.floats(allow_nan=False, allow_infinity=False),
        max_size=5,
    ),
    st.dictionaries(
        CELLS, st.fractions(0, 10, max_denominator=10_000).map(lambda one: round(one, 4)), max_size=3
    ),
    st.dictionaries(CELLS, st.sampled_from(Direction), max_size=3),
)
def test_what_is_written_is_read_back(
    values: dict[Identity, float], tolerances: dict[str, Fraction], directions: dict[str, Direction]
) -> None:
    before = Baseline("main", values, Fraction(3, 100), tolerances, directions, *MADE)
    content = json.dumps(to_document(before)).encode()
    assert from_json(content, "x") == before


def test_a_file_is_readable_sorted_and_the_same_for_the_same_values(tmp_path: Path) -> None:
    other = Identity("a", "ms")
    for name, values in (("one", {M: 1.5, other: 2.0}), ("two", {other: 2.0, M: 1.5})):
        save(Baseline("main", values, made_at=MADE[0], made_from=MADE[1]), tmp_path / "new" / f"{name}.json")
    text = (tmp_path / "new" / "one.json").read_text()
    assert text == (tmp_path / "new" / "two.json").read_text()
    assert text.splitlines()[1:3] == ['  "schema": 1,', '  "name": "main",']
    assert [one["model"] for one in json.loads(text)["measurements"]] == ["a", "m"]
    assert stat.S_IMODE((tmp_path / "new" / "one.json").stat().st_mode) == 0o600


def test_a_file_that_others_may_read_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.write_bytes(document())
    path.chmod(0o644)
    save(Baseline("main", {M: 1.0}), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_example_of_the_page_is_a_baseline() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "history.md").read_text(), re.DOTALL)
    found = from_json(example.encode(), "docs/history.md")
    assert [one.model for one in found.values] == ["llama70b"]
    assert found.direction_of("stalls") is Direction.LOWER


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"[]", "expected an object"),
        (document(schema=2), "written by a newer phalanx"),
        (document(schema=0), "schema: expected 1"),
        (document(tolerence="2%"), "tolerence: it is not a known key; did you mean 'tolerance'"),
        (document(tolerance="2"), "tolerance: expected a percentage"),
        (document(tolerances={"tok/s": "x"}), "tolerances.tok/s: expected a percentage"),
        (document(directions={"tok/s": "up"}), "directions.tok/s: expected 'higher' or 'lower'"),
        (document(measurements=[{"model": "m", "valeu": 1}]), "did you mean 'value'"),
        (document(measurements=[{"model": "m"}]), r"measurements\[0\].value: it is required and missing"),
        (
            document(measurements=[{"model": "m", "value": "1"}]),
            r"measurements\[0\].value: expected a number",
        ),
        (
            document(measurements=[{"model": "m", "value": True}]),
            r"measurements\[0\].value: expected a number",
        ),
        (document(measurements=[{"model": "m", "value": float("nan")}]), r"measurements\[0\].value: "),
        (document(measurements=[{"model": "m", "value": 10**400}]), r"measurements\[0\].value: "),
        (document(measurements=[{"model": "", "value": 1}]), r"measurements\[0\].model: "),
        (document(measurements=[{"model": "m", "value": 1}] * 2), r"measurements\[1\]: m  is there twice"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_the_place(content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        from_json(content, "/b/main.json")
    assert str(raised.value).startswith("cannot read baseline /b/main.json: ")


def test_a_name_is_a_file_of_the_user_and_a_path_is_itself() -> None:
    environ = {"XDG_STATE_HOME": "/s"}
    assert place_of("main", environ) == Path("/s/phalanx/baselines/main.json")
    assert place_of("/ci/main.json", environ) == Path("/ci/main.json")
    assert place_of("main.json", environ) == Path.cwd() / "main.json"
    assert (name_of("ci/main.json"), name_of("main")) == ("main", "main")
    for name in ("", ".hidden", "a b", "x" * 65, "-x", "a\nb"):
        with pytest.raises(InputError, match="expected a name of letters"):
            place_of(name, environ)


def test_a_baseline_that_is_not_there_tells_the_nearest_and_how_to_make_one(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    save(Baseline("main", {M: 1.0}), place_of("main", environ))
    (tmp_path / "phalanx" / "baselines" / "notes.txt").write_text("")
    assert [name for name, _ in known_baselines(environ)] == ["main"]
    with pytest.raises(
        InputError, match=r"cannot find baseline 'mian': .*did you mean 'main'.*baseline set mian"
    ):
        load("mian", place_of("mian", environ), environ)


def measurements(*given: tuple[str, float | None]) -> list[Measured]:
    return [Measured(Identity("m", metric), value) for metric, value in given]


def test_a_baseline_set_anew_keeps_tolerances_and_directions_and_takes_the_new_values() -> None:
    wishes = wishes_of(["3%", "tok/s=5%"], ["stalls"], [])
    first = make("main", measurements(("tok/s", 100.0), ("stalls", 7.0), ("x", None)), wishes, None, MADE)
    assert first.values == {Identity("m", "tok/s"): 100.0, Identity("m", "stalls"): 7.0}
    assert (first.tolerance, first.tolerance_of("tok/s")) == (Fraction(3, 100), Fraction(5, 100))
    assert first.direction_of("stalls") is Direction.LOWER
    again = make("main", measurements(("tok/s", 110.0)), Wishes(), first, MADE)
    assert again.values == {Identity("m", "tok/s"): 110.0}
    assert (again.tolerance, again.tolerances, again.directions) == (
        first.tolerance,
        first.tolerances,
        first.directions,
    )


def test_what_cannot_be_a_baseline_is_refused() -> None:
    with pytest.raises(InputError, match="has no successful row with a performance"):
        make("main", measurements(("tok/s", None)), Wishes(), None, MADE)
    with pytest.raises(InputError, match="has several values of m tok/s"):
        make("main", measurements(("tok/s", 1.0), ("tok/s", 2.0)), Wishes(), None, MADE)
    with pytest.raises(InputError, match="no row has the metric 'tok/S'; did you mean 'tok/s'"):
        make("main", measurements(("tok/s", 1.0)), wishes_of(["tok/S=1%"], [], []), None, MADE)
    with pytest.raises(InputError, match="no row has the metric 'stalls'; there are: tok/s"):
        make("main", measurements(("tok/s", 1.0)), wishes_of([], ["stalls"], []), None, MADE)
    with pytest.raises(InputError, match="both lower and higher"):
        wishes_of([], ["a"], ["a"])


def test_of_a_perf_csv_the_last_row_of_a_measurement_counts(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    for value in (1.0, 3.0, 2.0):
        append_rows(path, [row(value).columns])
    append_rows(path, [row(9.0, nnodes="4").columns])
    assert sorted((one.identity.nnodes, one.value) for one in rows_of_csv(path)) == [("2", 2.0), ("4", 9.0)]


@pytest.mark.parametrize("first", ["=", "+", "-", "@"])
def test_a_perf_csv_knows_a_measurement_by_the_name_that_its_run_gave_it(tmp_path: Path, first: str) -> None:
    of_run = row(1.0, model=f"{first}m", metric=f"{first}tok/s", training_precision=f"{first}fp8").columns
    append_rows(tmp_path / "perf.csv", [of_run])
    assert rows_of_csv(tmp_path / "perf.csv") == [measured(of_run)]


def test_one_huge_cell_of_a_perf_csv_keeps_nobody_from_its_values(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row(1.0, metric="x" * 200_000).columns, row(2.0).columns])
    assert [one.value for one in rows_of_csv(path)] == [1.0, 2.0]


def test_a_failure_at_the_end_of_a_perf_csv_is_not_hidden_by_an_older_value(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    append_rows(path, [row(1.0).columns, row(5.0, model="n").columns, row(None).columns])
    assert [(one.identity.model, one.value) for one in rows_of_csv(path)] == [("n", 5.0), ("m", None)]


def test_a_failure_at_the_end_of_a_perf_csv_ends_the_values_of_the_models_results(tmp_path: Path) -> None:
    path = tmp_path / "perf.csv"
    parts = [row(1.0, model=f"bert_{name}", tags="t") for name in "ab"]
    large = row(5.0, model="bert_large", tags="other")
    append_rows(
        path, [one.columns for one in (*parts, large, row(9.0, model="bert_a", tags="t", nnodes="4"))]
    )
    baseline = make("main", rows_of_csv(path), Wishes(), None, MADE)
    assert regressions(compare(baseline, rows_of_csv(path))) == []
    append_rows(path, [row(None, model="bert", tags="t").columns])
    found = regressions(compare(baseline, rows_of_csv(path)))
    assert [(one.identity.model, one.identity.nnodes) for one in found] == [("bert_a", "2"), ("bert_b", "2")]
    assert found[1].note == "FAILURE"
    append_rows(path, [one.columns for one in parts])
    assert regressions(compare(baseline, rows_of_csv(path))) == []


def test_a_csv_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("model,speed\nm,1\n")
    with pytest.raises(InputError, match=r"it is no perf\.csv, it has no column performance, status, metric"):
        rows_of_csv(tmp_path / "x.csv")
