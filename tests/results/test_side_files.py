"""perf_entry, perf_super and common_info: madengine's forms, strict JSON, in the project and in the run."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.fleet.events import CaseFinished, FileCollected, RankStarted
from phalanx.controller.fleet.instructions import CaseEnd
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.controller.results.outcome import Circumstances, Evidence, judge
from phalanx.controller.results.perf_csv import COLUMNS

from ..plan.making import command, models
from ..small_disk import read_only

ENTRY_FILES = {"perf_entry.json", "perf_entry.csv", "perf_entry_super.json", "perf_entry_super.csv"}
SUPER_FILES = {"perf_super.json", "perf_super.csv"}


class Story:
    """A project and runs in it, as the controller judges them."""

    def __init__(self, tmp_path: Path) -> None:
        self.project = tmp_path / "proj"
        (self.project / "scripts" / "m").mkdir(parents=True)
        self.run_dir = tmp_path / "run"
        self.run_dir.mkdir()

    def plan(self, card: dict[str, Any] | None = None, **more: Any) -> Plan:
        return plan_for_tags(models(card or {}, cwd=str(self.project), **more))

    def judged(
        self,
        plan: Plan,
        log: str = "",
        table: str = "",
        *,
        failure: str = "",
        cancelled: bool = False,
        started: bool = True,
        case: str = "",
        file_mode: int | None = None,
    ) -> CaseFinished:
        name = case or plan.cases[0].name
        evidence = Evidence()
        if started:
            evidence.add(RankStarted(name, "main", "n0", 0))
        folder = self.run_dir / "logs" / "n0" / ("" if len(plan.cases) == 1 else name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rank0.out").write_text(log)
        if table:
            kept = f"results/n0/{name}-r.csv"
            (self.run_dir / kept).parent.mkdir(parents=True, exist_ok=True)
            (self.run_dir / kept).write_text(table)
            evidence.add(FileCollected(name, "n0", "rank0/r.csv", 1, "00", kept, ""))
        end = CaseEnd(("n0",), 1, not failure, failure, cancelled, 0.0)
        known = Circumstances("", "", 1.5, {}, file_mode=file_mode)
        return judge(plan, name, self.run_dir, end, evidence, known)

    def json(self, name: str) -> Any:
        def no_constant(word: str) -> Any:
            raise AssertionError(f"{name} holds {word}")

        return json.loads((self.project / name).read_text(), parse_constant=no_constant)

    def csv(self, name: str) -> list[dict[str, str]]:
        with (self.project / name).open(newline="") as file:
            return list(csv.DictReader(file))

    def files(self) -> set[str]:
        return {path.name for path in self.project.iterdir()} - {"scripts"}


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_files_of_the_project_are_as_the_users_umask_has_it_and_those_of_the_run_private(
    story: Story, umask: int
) -> None:
    mode = 0o666 & ~umask
    before = os.umask(0o077)
    try:
        for log in ("performance: 1 x\n", "performance: 2 x\n"):
            story.judged(story.plan(), log, file_mode=mode)
            modes = {path.name: path.stat().st_mode & 0o777 for path in story.project.glob("perf*")}
            assert modes == dict.fromkeys({"perf.csv"} | ENTRY_FILES | SUPER_FILES, mode)
        (story.project / "perf_entry.json").chmod(0o640)
        (story.project / "perf_super.json").write_text('[{"a": 1}]')
        story.judged(story.plan(), "performance: 3 x\n", file_mode=mode)
        assert (story.project / "perf_entry.json").stat().st_mode & 0o777 == 0o640
        assert (story.project / "perf_super.json").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    made = [path for path in story.run_dir.rglob("perf*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


def test_a_single_result_is_an_object_with_its_performance_as_text(story: Story) -> None:
    finished = story.judged(story.plan({"n_gpus": "8"}), "performance: 12.50 tok/s\n")
    assert finished.status == "SUCCESS"
    assert story.files() == {"perf.csv"} | ENTRY_FILES | SUPER_FILES
    entry = story.json("perf_entry.json")
    assert list(entry) == [*COLUMNS, "configs"]
    assert (entry["performance"], entry["metric"], entry["n_gpus"]) == ("12.50", "tok/s", "8")
    assert (entry["status"], entry["configs"], entry["args"]) == ("SUCCESS", None, "")
    [kept] = story.json("perf_super.json")
    assert kept == {**entry, "multi_results": None}
    assert story.json("perf_entry_super.json") == [kept]
    [row] = story.csv("perf_entry.csv")
    assert list(row) == list(COLUMNS)
    assert row == story.csv("perf.csv")[0]
    [row] = story.csv("perf_super.csv")
    assert list(row) == [*COLUMNS, "configs", "multi_results"]
    assert (row["performance"], row["configs"]) == ("12.50", "")
    assert story.csv("perf_entry_super.csv") == [row]


TABLE = (
    " model ,performance, metric,ttft,test_duration,status\na,1.5,x,0.25,3.5,BAD\nb,nan,x,,,\nc,7,x,nan,2,\n"
)


def test_several_results_are_an_array_with_numbers_and_what_they_share_stands_apart(story: Story) -> None:
    finished = story.judged(story.plan({"multiple_results": "r.csv", "tags": ["t"]}), table=TABLE)
    assert (finished.status, finished.reason) == ("SUCCESS", "3 results, 1 without a performance")
    entries = story.json("perf_entry.json")
    assert [
        (one["model"], one["performance"], one["status"], one["ttft"], one["test_duration"])
        for one in entries
    ] == [
        ("m0_a", 1.5, "SUCCESS", 0.25, "3.5"),
        ("m0_b", None, "FAILURE", None, "1.50"),
        ("m0_c", 7, "SUCCESS", None, "2"),
    ]
    assert "configs" not in entries[0]
    supers = story.json("perf_super.json")
    assert [one["multi_results"] for one in supers] == [{"ttft": 0.25}, {"ttft": None}, {"ttft": None}]
    assert "ttft" not in supers[0]
    assert [one["test_duration"] for one in supers] == ["3.5", "1.50", "2"]
    assert json.loads(story.csv("perf_super.csv")[0]["multi_results"]) == {"ttft": 0.25}
    common = story.json("common_info.json")
    assert set(common) == set(COLUMNS) - {"model", "performance", "metric", "status"}
    assert (common["tags"], common["test_duration"]) == ("t", "1.50")
    assert [row["ttft"] for row in story.csv("perf_entry.csv")] == ["0.25", "", "nan"]


def test_super_files_grow_and_entry_files_tell_of_the_last_case(story: Story) -> None:
    story.judged(story.plan({"multiple_results": "r.csv"}), table=TABLE)
    story.judged(story.plan(), "performance: 2 x\n")
    assert len(story.json("perf_super.json")) == len(story.csv("perf_super.csv")) == 4
    assert story.json("perf_entry.json")["performance"] == "2"
    assert "common_info.json" not in story.files()


def test_the_configuration_stands_beside_the_values_that_it_led_to(story: Story) -> None:
    (story.project / "scripts" / "c.csv").write_text("model,batch\na,8\nc,16\n")
    (story.project / "c.yaml").write_text("batch: 4\n")
    card = {"multiple_results": "r.csv", "args": "--x 1 --config c.csv"}
    story.judged(story.plan(card, environ={"MODEL_DIR": str(story.project)}), table=TABLE)
    assert [one["configs"] for one in story.json("perf_super.json")] == [
        {"model": "a", "batch": "8"},
        None,
        {"model": "c", "batch": "16"},
    ]
    story.judged(story.plan({"args": "--config=c.yaml"}), "performance: 2 x\n")
    assert story.json("perf_entry.json")["configs"] == {"batch": 4}
    finished = story.judged(story.plan({"args": "--config /etc/passwd"}), "performance: 2 x\n")
    assert "configs: --config /etc/passwd is not read: it is outside the project" in finished.notes


def test_a_failure_after_the_start_has_records_and_one_before_it_only_its_row(story: Story) -> None:
    assert story.judged(story.plan(), failure="no image", started=False).status == "FAILURE"
    assert story.files() == {"perf.csv"}
    assert story.judged(story.plan(), cancelled=True).status == "CANCELLED"
    assert story.files() == {"perf.csv"}
    story.judged(story.plan(), failure="rank 0: exit 1")
    assert story.json("perf_entry.json")["performance"] is None
    assert story.json("perf_entry.json")["status"] == "FAILURE"


def test_the_option_for_rows_moves_perf_csv_alone(story: Story, tmp_path: Path) -> None:
    story.judged(story.plan(output_csv=str(tmp_path / "mine.csv")), "performance: 2 x\n")
    assert story.files() == ENTRY_FILES | SUPER_FILES
    story.judged(story.plan(output_csv=""), "performance: 2 x\n")
    assert len(story.json("perf_super.json")) == 1


def test_a_plain_command_leaves_nothing_in_the_working_directory(story: Story) -> None:
    plan = plan_for_command(command("true", cwd=str(story.project)))
    assert story.judged(plan, "performance: 2 x\n").status == "SUCCESS"
    assert story.files() == set()
    assert not (story.run_dir / "entries").exists()


def test_the_run_keeps_its_own_copies_of_several_cases_apart(story: Story) -> None:
    plan = plan_for_tags(models({}, {}, cwd=str(story.project)))
    for case in plan.cases:
        story.judged(plan, f"performance: 1 {case.name}\n", case=case.name)
    kept = {
        path.relative_to(story.run_dir).as_posix() for path in story.run_dir.glob("entries/*/perf_entry.json")
    }
    assert kept == {"entries/m0/perf_entry.json", "entries/m1/perf_entry.json"}
    assert json.loads((story.run_dir / "entries/m1/perf_entry.json").read_text())["metric"] == "m1"


def test_what_cannot_be_written_is_said_and_the_row_counts(story: Story) -> None:
    (story.project / "perf_super.json").write_text('{"not": "ours"}')
    finished = story.judged(story.plan(), "performance: 2 x\n")
    assert finished.status == "SUCCESS"
    assert "perf_super.json: it is no JSON array of objects; move it away" in finished.error
    assert (story.project / "perf_super.json").read_text() == '{"not": "ours"}'
    assert story.json("perf_entry.json")["performance"] == "2"
    assert len(story.csv("perf_super.csv")) == 1


def test_a_folder_that_may_not_be_written_to_is_said(story: Story) -> None:
    plan = story.plan()
    with read_only(story.project):
        finished = story.judged(plan, "performance: 2 x\n")
    assert finished.status == "FAILURE"
    assert finished.rows[0]["performance"] == "2"
    assert f"cannot write {story.project}/perf.csv: " in finished.error
    assert f"cannot write {story.project}/perf_super.json: " in finished.error
    assert (story.run_dir / "perf.csv").exists()


def test_no_temporary_file_is_left(story: Story) -> None:
    story.judged(story.plan({"multiple_results": "r.csv"}), table=TABLE)
    assert not [path for path in story.project.rglob("*") if path.name.startswith(".")]
