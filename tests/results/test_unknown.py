"""What is not known makes no success: logs that did not arrive, results that could not be taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.instructions import CaseEnd
from phalanx.controller.logs.paths import StreamName
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.controller.results.outcome import Circumstances, Evidence, judge

from ..plan.making import command, models

MISSING = StreamName("n1", "m0", "main", 1, "out")


def judged(
    plan: Plan, run_dir: Path, *more: ev.Event, log: str = "", missing: tuple[StreamName, ...] = ()
) -> ev.CaseFinished:
    plan, case = replace(plan, output_csv="", entries=""), plan.cases[0].name
    evidence = Evidence()
    for rank, text in enumerate((log, "")):
        evidence.add(ev.RankStarted(case, "main", f"n{rank}", rank))
        (run_dir / "logs" / f"n{rank}").mkdir(parents=True)
        (run_dir / "logs" / f"n{rank}" / f"rank{rank}.out").write_text(text)
    for event in more:
        evidence.add(event)
    end = CaseEnd(("n0", "n1"), 2, completed=True, failure="", cancelled=False, seconds=0.0)
    return judge(plan, case, run_dir, end, evidence, Circumstances("", "", 1.5, {}, missing))


def test_a_value_from_logs_of_which_one_did_not_arrive_is_no_success_and_stays(tmp_path: Path) -> None:
    plan = plan_for_tags(models({}, nodes=2))
    verdict = judged(plan, tmp_path, log="performance: 10 tok/s\n", missing=(MISSING,))
    assert verdict.status == "FAILURE"
    assert verdict.reason == (
        "what the ranks said is not known: 1 of their logs did not arrive whole, first logs/n1/rank1.out"
    )
    assert verdict.rows[0]["performance"] == "10"
    assert verdict.rows[0]["status"] == "FAILURE"


def test_a_log_of_another_step_or_of_a_plain_command_does_not_decide(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plan = plan_for_tags(models({}, nodes=2))
    other = StreamName("n1", "m0", "post-1", -1, "out")
    assert judged(plan, tmp_path / "a", log="performance: 1 s\n", missing=(other,)).status == "SUCCESS"
    assert judged(plan_for_command(command("true")), tmp_path / "b", missing=(MISSING,)).status == "SUCCESS"


def table(run_dir: Path, node: str = "n1") -> ev.FileCollected:
    """The results that one node left."""
    kept = f"results/{node}/rank1/r.csv"
    (run_dir / kept).parent.mkdir(parents=True)
    (run_dir / kept).write_text("model,performance,metric\na,3,tok/s\n")
    return ev.FileCollected("m0", node, "rank1/r.csv", 1, "00", kept)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (
            ev.FileCollected("m0", "n0", "rank0/r.csv", 1, "00", "", "the file changed after it was offered"),
            "the results of n0 are not known: rank0/r.csv could not be taken from it: the file changed after",
        ),
        (
            ev.CaseCollectedOn("m0", "n0", 0, ("no answer within 300 s",), answered=False),
            "the results of n0 are not known: it did not say in time which files it has",
        ),
    ],
)
def test_the_results_of_another_node_do_not_stand_for_those_that_are_not_known(
    tmp_path: Path, event: ev.Event, reason: str
) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}, nodes=2))
    verdict = judged(plan, tmp_path, event, table(tmp_path))
    assert verdict.status == "FAILURE"
    assert verdict.reason.startswith(reason)
    assert [(row["performance"], row["status"]) for row in verdict.rows] == [("3", "FAILURE")]


def test_another_file_that_could_not_be_taken_does_not_decide(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}, nodes=2))
    trace = ev.FileCollected("m0", "n0", "rank0/trace.bin", 1, "00", "", "the file changed")
    answered = ev.CaseCollectedOn("m0", "n0", 0, ("x.bin: larger than 512 MiB",))
    assert judged(plan, tmp_path, trace, answered, table(tmp_path)).status == "SUCCESS"
