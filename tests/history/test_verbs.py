"""``history``, ``baseline`` and ``run --baseline`` as programs: what they print, how they end."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.cli.main import main
from phalanx.controller.fleet import events as ev
from phalanx.controller.results.history import NodeEntry, opened

from tests.cli.driver import Phalanx
from tests.history.entries import DAY_S, START, row, run
from tests.runs.fake_controller import act
from tests.runs.stories import STORIES, first_failure, recorded, running, started

pytestmark = pytest.mark.local


@pytest.fixture
def phalanx(tmp_path: Path) -> Phalanx:
    """``phalanx`` with a controller that plays a part."""
    return Phalanx(tmp_path)


def measuring(**values: float) -> list[ev.Event]:
    """A run that went well and measured models in tok/s."""
    rows = tuple(
        {"model": model, "performance": str(value), "metric": "tok/s", "nnodes": "2", "status": "SUCCESS"}
        for model, value in values.items()
    )
    verdict = ev.CaseFinished("demo", "SUCCESS", "", rows)
    return [*started(), *running(), verdict, ev.RunEnding("over"), ev.RunFinished("succeeded", 0, "")]


def play(phalanx: Phalanx, events: list[ev.Event], *words: str, env: dict[str, str] | None = None) -> Any:
    phalanx.part([act(event) for event in events])
    return phalanx("run", "-N", "2", *words, "--", "./train.sh", env=env)


def kept(phalanx: Phalanx, name: str, events: list[ev.Event]) -> Path:
    """The directory of a run that was."""
    folder = phalanx.place / "elsewhere" / name
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_bytes(b"".join(ev.to_line(name, one) for one in recorded(events)))
    (folder / "run.json").write_text(json.dumps({"argv": ["phalanx", "run"], "user": "alice"}))
    return folder


@pytest.fixture
def fed(phalanx: Phalanx) -> Phalanx:
    """With a history of three runs, whose node n87 failed first in the last one."""
    with opened(phalanx.place / "state" / "phalanx" / "history.db") as history:
        for number, value in enumerate((100.0, 110.0, None)):
            at = START + number * DAY_S
            nodes = (
                NodeEntry("n87", value is None, "rank 3 exit 7" if value is None else ""),
                NodeEntry("n88"),
            )
            history.add(run(number, row(value, at=at), at=at, nodes=nodes))
    return phalanx


def test_history_lists_results_newest_first_with_their_change(fed: Phalanx) -> None:
    done = fed("history")
    assert done.code == 0, done.err
    head, *lines = done.out.splitlines()
    heads = ["TIME", "RUN", "MODEL", "NODES", "GPUS", "PERFORMANCE", "METRIC", "CHANGE", "STATUS"]
    assert head.split() == heads
    assert [line.split()[2] for line in lines] == [f"20261122-020124-r-000{number}" for number in (2, 1, 0)]
    assert [line.split()[-1] for line in lines] == ["FAILURE", "SUCCESS", "SUCCESS"]
    assert "110.0        tok/s   +10.0 %" in lines[1]
    (one,) = fed("history", "m", "--limit", "1").out.splitlines()[1:]
    assert one.split() == lines[0].split()
    assert fed("history", "list", "m").out == done.out
    document = json.loads(fed("history", "m", "--status", "success", "--json").out)
    assert [(one["value"], one["before"]) for one in document["results"]] == [(110.0, 100.0), (100.0, None)]


def test_a_metric_of_any_length_does_not_push_the_status_off_the_screen(phalanx: Phalanx) -> None:
    with opened(phalanx.place / "state" / "phalanx" / "history.db") as history:
        history.add(run(0, row(100.0, at=START, metric="x" * 200_000), at=START))
    done = phalanx("history")
    assert (done.code, max(map(len, done.out.splitlines())) < 250) == (0, True), done.err
    assert done.out.rstrip().endswith("SUCCESS")
    assert max(map(len, phalanx("history", "--summary").out.splitlines())) < 250


def test_history_of_a_node_says_how_often_it_failed_first(fed: Phalanx) -> None:
    done = fed("history", "n87")
    first, _, head, *lines = done.out.splitlines()
    assert first == "n87 failed first in 1 of the last 3 runs"
    assert head.split() == ["TIME", "RUN", "STATE", "EXIT", "MODELS", "NODE"]
    assert lines[0].endswith("failed first: rank 3 exit 7")
    assert [line.split()[3] for line in lines] == ["failed", "succeeded", "succeeded"]
    document = json.loads(fed("history", "--node", "n88", "--json").out)
    assert (document["node"], document["failed_first"], len(document["runs"])) == ("n88", 0, 3)


def test_history_summary_has_a_trend_for_each_model(fed: Phalanx) -> None:
    done = fed("history", "--summary")
    assert done.out.splitlines()[1].split()[-5:] == ["2", "110", "100", "110", "▁█"]
    plain = fed("history", "--summary", env={"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert plain.out.splitlines()[1].endswith("18")
    document = json.loads(fed("history", "--summary", "--json").out)
    assert document["trends"][0]["values"] == [100.0, 110.0]


def test_history_refuses_what_it_does_not_know_with_the_nearest(fed: Phalanx) -> None:
    for words, said in (
        (("n78",), "cannot find 'n78': no model or node"),
        (("--since", "yesterday"), "cannot use --since"),
        (("--status", "GOOD"), "GOOD"),
        (("n87", "--summary"), "cannot sum up a node"),
        (("prune",), "--keep"),
        (("import",), "RUN_DIR"),
    ):
        done = fed("history", *words)
        assert (done.code, said in done.err) == (4, True), done.err
    assert "did you mean" in fed("history", "n78").err


@pytest.mark.parametrize("count", ["0", "99999999999999999999"])
def test_a_count_that_no_history_could_have_is_refused(fed: Phalanx, count: str) -> None:
    done = fed("history", "--limit", count)
    assert (done.code, "--limit" in done.err) == (4, True), done.err


def test_history_that_is_not_there_yet_or_off_says_so_and_makes_nothing(phalanx: Phalanx) -> None:
    done = phalanx("history")
    assert (done.code, done.out) == (0, "")
    assert "yet: every run adds to it at its end" in done.err
    assert phalanx("history", "prune", "--keep", "1d").code == 0
    assert not (phalanx.place / "state").exists()
    off = phalanx("history", env={"PHALANX_HISTORY": "off"})
    assert (off.code, "PHALANX_HISTORY is off" in off.err) == (4, True)


def test_history_where_nobody_lets_us_look_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setenv("PHALANX_HISTORY", str(tmp_path / "history.db"))
    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(SystemExit) as ended:
        main(["history"])
    words = capsys.readouterr().err
    assert ended.value.code == 1
    assert "history.db: Permission denied; choose another file with PHALANX_HISTORY" in words


def test_history_that_is_damaged_is_named_without_a_traceback(phalanx: Phalanx) -> None:
    (phalanx.place / "h.db").write_bytes(b"x" * 8192)
    done = phalanx("history", env={"PHALANX_HISTORY": str(phalanx.place / "h.db")})
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "h.db: it is damaged" in done.err


def test_import_feeds_runs_that_were_not_recorded_once(phalanx: Phalanx) -> None:
    good = kept(phalanx, "20261122-020124-demo-0001", STORIES["success"])
    bad = kept(phalanx, "20261122-020124-demo-0002", STORIES["first_failure"])
    open_end = kept(phalanx, "20261122-020124-demo-0003", STORIES["unfinished"])
    done = phalanx("history", "import", str(good), str(bad), str(good))
    assert (done.code, done.out) == (0, "2 added, 0 known before\n"), done.err
    again = phalanx("history", "import", str(good), str(open_end), str(phalanx.place))
    assert (again.code, again.out) == (1, "0 added, 1 known before, 2 unusable\n")
    assert "its event log has no end" in again.err
    assert phalanx("history", "node2").out.startswith("node2 failed first in 1 of the last 2 runs\n")


def test_prune_forgets_what_is_old_and_first_says_what_that_would_be(phalanx: Phalanx) -> None:
    kept_run = kept(phalanx, "20261122-020124-demo-0001", STORIES["success"])
    phalanx("history", "import", str(kept_run))
    with opened(phalanx.place / "state" / "phalanx" / "history.db") as history:
        history.add(run(1, row(1.0, at=DAY_S), row(2.0, at=DAY_S), at=DAY_S))
    dry = phalanx("history", "prune", "--keep", "3650d", "--dry-run")
    assert dry.out == "would forget 1 run with 2 rows; nothing was touched\n"
    assert phalanx("history", "prune", "--keep", "3650d").out == "forgot 1 run with 2 rows\n"
    assert len(phalanx("history").out.splitlines()) == 2


def test_a_baseline_is_set_listed_shown_checked_and_removed(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0, b=50.0))
    done = phalanx("baseline", "set", "main", "--tolerance", "5%")
    path = phalanx.place / "state" / "phalanx" / "baselines" / "main.json"
    assert (done.code, str(path) in done.out) == (0, True), done.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert phalanx("baseline", "list").out.splitlines()[1].startswith("main  2       5%         20")
    assert [line.split()[0] for line in phalanx("baseline", "show", "main").out.splitlines()[1:]] == [
        "a",
        "b",
    ]
    checked = phalanx("baseline", "check", "main")
    assert (checked.code, checked.out.splitlines()[-1]) == (0, "baseline main: 2 within")
    play(phalanx, measuring(a=94.9, b=52.6, c=1.0))
    worse = phalanx("baseline", "check", "main")
    assert worse.code == 7
    assert worse.out.splitlines()[-1] == "baseline main: 1 improved, 1 regressed, 1 new"
    assert [line.split() for line in worse.out.splitlines()[1:4]] == [
        ["a", "tok/s", "2", "100", "94.9", "-5.10%", "-5%", "regressed"],
        ["b", "tok/s", "2", "50", "52.6", "+5.20%", "-5%", "improved"],
        ["c", "tok/s", "2", "-", "1", "-", "-", "new"],
    ]
    document = json.loads(phalanx("baseline", "check", "main", "--json").out)
    assert (document["regressed"], document["measurements"][0]["verdict"]) == (True, "regressed")
    assert phalanx("baseline", "remove", "main").code == 0
    gone = phalanx("baseline", "check", "main")
    assert (gone.code, "cannot find baseline 'main'" in gone.err) == (4, True)


def test_what_is_measured_no_more_is_a_regression_unless_it_is_allowed(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0, b=50.0))
    phalanx("baseline", "set", "main")
    play(phalanx, measuring(a=100.0))
    assert phalanx("baseline", "check", "main").code == 7
    allowed = phalanx("baseline", "check", "main", "--allow-missing")
    assert (allowed.code, allowed.out.splitlines()[-1]) == (0, "baseline main: 1 within, 1 missing")


def test_a_baseline_can_lie_in_a_repository(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0))
    assert phalanx("baseline", "set", "main", "--file", "ci/base.json").code == 0
    assert json.loads((phalanx.place / "ci" / "base.json").read_text())["name"] == "main"
    assert phalanx("baseline", "check", "main", "--file", "ci/base.json").code == 0
    assert phalanx("baseline", "check", "ci/base.json").code == 0
    other = phalanx("baseline", "check", "nightly", "--file", "ci/base.json")
    assert (other.code, "it is the baseline 'main'" in other.err) == (4, True)
    assert not (phalanx.place / "state").exists()


def test_a_perf_csv_does_as_well_as_a_run(phalanx: Phalanx) -> None:
    csv = phalanx.place / "perf.csv"
    csv.write_text("model,performance,metric,status\nm,10,ms,SUCCESS\n")
    assert phalanx("baseline", "set", "main", "perf.csv").code == 0
    csv.write_text(csv.read_text() + "m,10.3,ms,SUCCESS\n")
    done = phalanx("baseline", "check", "main", "perf.csv")
    assert (done.code, done.out.splitlines()[-1]) == (7, "baseline main: 1 regressed")
    assert done.out.splitlines()[1].split()[-3:] == ["+3.00%", "+2%", "regressed"]


def test_a_perf_csv_whose_newest_run_failed_is_not_green(phalanx: Phalanx) -> None:
    csv = phalanx.place / "perf.csv"
    csv.write_text("model,performance,metric,status\nmulti_m1,10,ms,SUCCESS\nmulti_m2,20,ms,SUCCESS\n")
    assert phalanx("baseline", "set", "main", "perf.csv").code == 0
    assert phalanx("baseline", "check", "main", "perf.csv").code == 0
    csv.write_text(csv.read_text() + "multi,,,FAILURE\n")
    done = phalanx("baseline", "check", "main", "perf.csv")
    assert (done.code, done.out.splitlines()[-1]) == (7, "baseline main: 2 missing")


def test_baseline_refuses_in_words_what_it_cannot_use(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0))
    for words, said in (
        (("set", "main", "--tolerance", "2"), "cannot use tolerance '2'"),
        (("set", "main", "--lower-is-better", "tok"), "did you mean 'tok/s'"),
        (("set", "a b"), "expected a name of letters"),
        (("set", "main", "nowhere"), "cannot find run 'nowhere'"),
        (("show", "main"), "cannot find baseline 'main'"),
        (("remove", "main"), "cannot find baseline 'main'"),
        (("chekc", "main"), "did you mean check?"),
    ):
        done = phalanx("baseline", *words)
        assert (done.code, said in done.err) == (4, True), done.err
    assert not (phalanx.place / "state" / "phalanx" / "baselines").exists()


def test_a_file_that_is_no_baseline_is_not_overwritten(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0))
    (phalanx.place / "package.json").write_text('{"name": "x"}')
    done = phalanx("baseline", "set", "main", "--file", "package.json")
    assert (done.code, "schema: it is required and missing" in done.err) == (4, True)
    assert (phalanx.place / "package.json").read_text() == '{"name": "x"}'


def test_a_run_that_is_held_against_a_baseline_ends_with_seven_when_it_got_worse(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0, b=50.0))
    phalanx("baseline", "set", "main")
    good = play(phalanx, measuring(a=99.0, b=50.0), "--baseline", "main")
    assert (good.code, good.err.splitlines()[-1]) == (0, "baseline main: 2 within")
    worse = play(phalanx, measuring(a=90.0, b=50.0), "--baseline", "main")
    assert worse.code == 7
    assert "\nbaseline main: 1 within, 1 regressed\n" in worse.err
    assert worse.err.splitlines()[-1].split()[0] == "a"
    assert phalanx("wait").code == 0
    assert json.loads(phalanx("status", "--json").out)["exit_code"] == 0


def test_the_code_of_a_failure_is_never_hidden_by_a_baseline(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0))
    phalanx("baseline", "set", "main")
    done = play(phalanx, first_failure(), "--baseline", "main")
    assert (done.code, "baseline main" in done.err) == (3, False)


def test_quiet_says_only_that_something_got_worse(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0))
    phalanx("baseline", "set", "main")
    assert "baseline" not in play(phalanx, measuring(a=100.0), "-q", "--baseline", "main").err
    assert "1 regressed" in play(phalanx, measuring(a=90.0), "-q", "--baseline", "main").err


def test_a_baseline_that_cannot_be_used_is_refused_before_anything_is_touched(phalanx: Phalanx) -> None:
    for words, said in (
        (("--baseline", "mian"), "cannot find baseline 'mian'"),
        (("-d", "--baseline", "main"), "cannot leave a run and hold it against a baseline"),
    ):
        done = phalanx("run", *words, "--", "true")
        assert (done.code, said in done.err) == (4, True)
    assert not phalanx.runs.exists()


def test_a_run_that_could_not_be_recorded_says_so_on_its_last_screen(phalanx: Phalanx) -> None:
    play(phalanx, measuring(a=100.0))
    (phalanx.only_run() / "history.json").write_text(
        '{"v": 1, "error": "cannot use the history /h: no room"}'
    )
    shown = phalanx("status").out
    assert "! history      cannot use the history /h: no room" in shown
