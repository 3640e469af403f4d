"""The verdict of a case: exit statuses, files and logs have to agree; a row whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.controller.results.case import (
    CaseOutcome,
    CaseVerdict,
    RankLog,
    Status,
    finish_case,
    record_rows,
)
from phalanx.controller.results.perf_csv import COLUMNS
from phalanx.controller.results.provenance import CollectedFile

from ..plan.making import command, models


def outcome(run_dir: Path, logs: tuple[str, ...] = (), **more: Any) -> CaseOutcome:
    """An outcome on two nodes with these logs, by rank."""
    found = []
    for rank, text in enumerate(logs):
        path = run_dir / "logs" / f"rank{rank}.out"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        found.append(RankLog(rank, f"n{rank}", f"logs/rank{rank}.out", f"logs/rank{rank}.err"))
    given = {"nodes": ("n0", "n1"), "seconds": 1.5, "hostname": "login", "logs": tuple(found), **more}
    return CaseOutcome(**given)


def files(run_dir: Path, *texts: str, name: str = "r.csv") -> tuple[CollectedFile, ...]:
    found = []
    for node, text in enumerate(texts):
        kept = f"results/n{node}/rank{node}/{name}"
        (run_dir / kept).parent.mkdir(parents=True)
        (run_dir / kept).write_text(text)
        found.append(CollectedFile(f"n{node}", node, f"rank{node}/{name}", kept))
    return tuple(found)


def judged(plan: Plan, run_dir: Path, went: CaseOutcome) -> CaseVerdict:
    verdict = finish_case(plan, plan.cases[0], run_dir, went)
    assert verdict.rows
    assert all(set(COLUMNS) <= set(row) for row in verdict.rows)
    return verdict


def test_a_model_with_a_performance_line_succeeds_with_a_whole_row(tmp_path: Path) -> None:
    card = {"args": "--a", "tags": ["x", "y"], "training_precision": "fp8", "n_gpus": "4"}
    plan = plan_for_tags(models(card, nodes=2, image="img:1"))
    went = outcome(
        tmp_path, ("noise\n", "performance: 5.25 tok/s\n"), image_id="sha256:1", gpu_architecture="gfx942"
    )
    verdict = judged(plan, tmp_path, went)
    assert (verdict.status, verdict.reason) == (Status.SUCCESS, "5.25 tok/s")
    assert verdict.notes == ("first performance line of logs/rank1.out",)
    [row] = verdict.rows
    assert {name: value for name, value in row.items() if value} == {
        "model": "m0",
        "n_gpus": "8",
        "nnodes": "2",
        "gpus_per_node": "4",
        "training_precision": "fp8",
        "args": "--a",
        "tags": "x,y",
        "docker_sha": "sha256:1",
        "docker_image": "img:1",
        "machine_name": "login",
        "deployment_type": "local",
        "launcher": "docker",
        "gpu_architecture": "gfx942",
        "performance": "5.25",
        "metric": "tok/s",
        "status": "SUCCESS",
        "test_duration": "1.50",
        "build_number": "0",
    }


def test_the_lowest_rank_that_printed_one_gives_the_value(tmp_path: Path) -> None:
    plan = plan_for_tags(models(nodes=2))
    verdict = judged(plan, tmp_path, outcome(tmp_path, ("performance: 1 a\n", "performance: 2 a\n")))
    assert verdict.rows[0]["performance"] == "1"


def test_a_model_without_a_value_fails_although_all_ranks_ended_well(tmp_path: Path) -> None:
    verdict = judged(plan_for_tags(models()), tmp_path, outcome(tmp_path, ("nothing",)))
    assert verdict.status is Status.FAILURE
    assert verdict.reason == "no line 'performance: VALUE METRIC' in the logs of 1 ranks"
    assert verdict.rows[0]["status"] == "FAILURE"


def test_a_model_that_is_told_not_to_measure_needs_no_value(tmp_path: Path) -> None:
    plan = plan_for_tags(models(env=("MAD_COLLECT_METRICS=false",)))
    assert judged(plan, tmp_path, outcome(tmp_path, ("nothing",))).status is Status.SUCCESS


def test_a_plain_command_needs_no_value_and_may_have_one(tmp_path: Path) -> None:
    plan = plan_for_command(command("true"))
    verdict = judged(plan, tmp_path, outcome(tmp_path, ("hello",)))
    assert (verdict.status, verdict.rows[0]["performance"]) == (Status.SUCCESS, "")
    assert judged(plan, tmp_path, outcome(tmp_path, ("performance: 3 x\n",))).rows[0]["performance"] == "3"


@pytest.mark.parametrize(
    ("went", "status", "reason"),
    [
        ({"failure": "rank 1 on n1: exit 7"}, Status.FAILURE, "rank 1 on n1: exit 7"),
        ({"cancelled": True}, Status.CANCELLED, "cancelled"),
        ({"cancelled": True, "failure": "cancelled by ada"}, Status.CANCELLED, "cancelled by ada"),
        ({"skipped": "gfx90a is skipped"}, Status.SKIPPED, "gfx90a is skipped"),
    ],
)
def test_a_value_in_the_log_does_not_make_up_for_what_happened(
    tmp_path: Path, went: dict[str, Any], status: Status, reason: str
) -> None:
    verdict = judged(plan_for_tags(models()), tmp_path, outcome(tmp_path, ("performance: 9 x\n",), **went))
    assert (verdict.status, verdict.reason) == (status, reason)
    assert (verdict.rows[0]["status"], verdict.rows[0]["performance"]) == (status.value, "")


def test_a_results_file_gives_a_row_for_each_of_its_rows(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}, nodes=2))
    text = " model , performance,metric,ttft,status\na,1,x,0.5,BAD\nb,,x,,\n"
    went = outcome(tmp_path, files=files(tmp_path, "model,performance,metric\na,,x\n", text))
    verdict = judged(plan, tmp_path, went)
    assert (verdict.status, verdict.reason) == (Status.SUCCESS, "2 results, 1 without a performance")
    assert [(row["model"], row["performance"], row["status"], row["ttft"]) for row in verdict.rows] == [
        ("m0_a", "1", "SUCCESS", "0.5"),
        ("m0_b", "", "FAILURE", ""),
    ]
    assert verdict.notes == ("results from n1: rank1/r.csv, of 2 files: 1 values",)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ((), "no node left r.csv, the file that the model's multiple_results names"),
        (("model,performance\na,1\n",), "cannot read r.csv: n0: rank0/r.csv: it has no column metric"),
        (("model,performance,metric\na,,x\n",), "no row of n0: rank0/r.csv has a performance"),
    ],
)
def test_a_results_file_without_results_is_a_failure(
    tmp_path: Path, texts: tuple[str, ...], reason: str
) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}))
    verdict = judged(plan, tmp_path, outcome(tmp_path, files=files(tmp_path, *texts)))
    assert verdict.status is Status.FAILURE
    assert verdict.reason.startswith(reason)


def test_a_file_of_a_similar_name_is_not_the_results_file(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}))
    went = outcome(tmp_path, files=files(tmp_path, "model,performance,metric\na,1,x\n", name="other_r.csv"))
    assert judged(plan, tmp_path, went).status is Status.FAILURE


def test_on_slurm_the_job_is_the_machine(tmp_path: Path) -> None:
    plan = plan_for_command(command(context='{"slurm": {"nodes": 2}}'))
    row = judged(plan, tmp_path, outcome(tmp_path, job_id="4711")).rows[0]
    assert (row["machine_name"], row["deployment_type"]) == ("4711", "slurm")


def test_gpus_that_only_the_nodes_know_are_filled_in(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"n_gpus": "-1"}))
    row = judged(plan, tmp_path, outcome(tmp_path, gpus_per_node=8)).rows[0]
    assert (row["gpus_per_node"], row["n_gpus"]) == ("8", "16")
    unknown = judged(plan, tmp_path, outcome(tmp_path)).rows[0]
    assert (unknown["gpus_per_node"], unknown["n_gpus"]) == ("", "")


def test_rows_go_to_the_run_and_to_the_users_file(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    plan = plan_for_command(command(cwd=str(tmp_path), output_csv="mine.csv"))
    rows = judged(plan, run_dir, outcome(run_dir)).rows
    assert record_rows(plan, run_dir, rows) == ""
    assert (run_dir / "perf.csv").read_bytes() == (tmp_path / "mine.csv").read_bytes()
    (tmp_path / "mine.csv").write_text("something,else\n")
    assert "it is no perf.csv" in record_rows(plan, run_dir, rows)
    assert len((run_dir / "perf.csv").read_text().splitlines()) == 3


def test_an_error_in_a_log_fails_a_case_that_ended_well_and_its_value_stays(tmp_path: Path) -> None:
    plan = plan_for_tags(models(nodes=2))
    went = outcome(tmp_path, ("performance: 1 a\n", "fine\nRuntimeError: \x1b[31mboom\n"))
    verdict = judged(plan, tmp_path, went)
    assert verdict.status is Status.FAILURE
    assert verdict.reason == "rank 1 ended well, but logs/rank1.out:2 says: RuntimeError: boom"
    [row] = verdict.rows
    assert (row["status"], row["performance"], row["metric"]) == ("FAILURE", "1", "a")


def test_what_ranks_write_to_their_standard_error_is_looked_at_as_well(tmp_path: Path) -> None:
    went = outcome(tmp_path, ("performance: 1 a\n",))
    (tmp_path / "logs" / "rank0.err").write_text("Traceback (most recent call last):\n")
    verdict = judged(plan_for_tags(models()), tmp_path, went)
    assert verdict.reason == (
        "rank 0 ended well, but logs/rank0.err:1 says: Traceback (most recent call last):"
    )


@pytest.mark.parametrize(
    ("card", "context", "log", "status"),
    [
        ({}, "", "0 FAILED", "SUCCESS"),
        ({}, "", "FutureWarning: ValueError: x", "SUCCESS"),
        ({}, "", "1 FAILED", "FAILURE"),
        ({"log_error_benign_patterns": ["known"]}, "", "RuntimeError: known", "SUCCESS"),
        ({"log_error_benign_patterns": ["a"]}, '{"log_error_benign_patterns": ["b"]}', "FAILED b", "SUCCESS"),
        ({"log_error_benign_patterns": ["a"]}, '{"log_error_benign_patterns": ["b"]}', "FAILED a", "SUCCESS"),
        ({"log_error_patterns": ["NaN"]}, "", "loss NaN", "FAILURE"),
        ({"log_error_patterns": ["NaN"]}, "", "RuntimeError: x", "SUCCESS"),
        ({"log_error_patterns": ["NaN"]}, '{"log_error_patterns": ["inf"]}', "loss NaN", "SUCCESS"),
        ({"log_error_patterns": ["NaN"]}, '{"log_error_patterns": ["inf"]}', "loss inf", "FAILURE"),
        *(
            ({"log_error_pattern_scan": off}, "", "FAILED", "SUCCESS")
            for off in (False, "false", "0", "no", "OFF", "")
        ),
        ({"log_error_pattern_scan": True}, '{"log_error_pattern_scan": "no"}', "FAILED", "SUCCESS"),
        ({"log_error_pattern_scan": "no"}, '{"log_error_pattern_scan": true}', "FAILED", "FAILURE"),
    ],
)
def test_card_and_context_say_what_is_an_error(
    tmp_path: Path, card: dict[str, Any], context: str, log: str, status: str
) -> None:
    plan = plan_for_tags(models(card, context=context))
    verdict = judged(plan, tmp_path, outcome(tmp_path, (f"{log}\nperformance: 1 a\n",)))
    assert (verdict.status.value, verdict.rows[0]["status"]) == (status, status)
    assert verdict.rows[0]["performance"] == "1"


def test_the_logs_of_a_plain_command_are_its_own_affair(tmp_path: Path) -> None:
    went = outcome(tmp_path, ("FAILED\n",))
    assert judged(plan_for_command(command("true")), tmp_path, went).status is Status.SUCCESS


def test_of_two_reasons_to_fail_the_error_is_told_and_the_other_noted(tmp_path: Path) -> None:
    verdict = judged(plan_for_tags(models()), tmp_path, outcome(tmp_path, ("ImportError: x\n",)))
    assert verdict.reason == "rank 0 ended well, but logs/rank0.out:1 says: ImportError: x"
    assert "no line 'performance: VALUE METRIC' in the logs of 1 ranks" in verdict.notes


def test_an_error_in_a_log_fails_every_row_of_a_results_file(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}))
    found = files(tmp_path, "model,performance,metric\na,1,x\nb,2,x\n")
    verdict = judged(plan, tmp_path, outcome(tmp_path, ("FAILED\n",), files=found))
    assert verdict.status is Status.FAILURE
    assert [(row["performance"], row["status"]) for row in verdict.rows] == [
        ("1", "FAILURE"),
        ("2", "FAILURE"),
    ]


def test_the_last_value_counts_when_it_is_asked_for(tmp_path: Path) -> None:
    log = "performance: 1 warm-up\nperformance: 2 a\n"
    plan = plan_for_tags(models(performance="last"))
    assert plan.cases[0].result.which == "last"
    assert plan.origins["cases.m0.result.which"] == "--performance"
    assert judged(plan, tmp_path, outcome(tmp_path, (log,))).rows[0]["performance"] == "2"
    plain = plan_for_command(command("true", performance="last"))
    assert judged(plain, tmp_path, outcome(tmp_path, (log,))).rows[0]["performance"] == "2"


def test_a_million_values_are_one_row(tmp_path: Path) -> None:
    log = "".join(f"performance: {number} x\n" for number in range(1_000_000))
    for which, value in (("", "0"), ("last", "999999")):
        verdict = judged(plan_for_tags(models(performance=which)), tmp_path, outcome(tmp_path, (log,)))
        assert [(row["status"], row["performance"]) for row in verdict.rows] == [("SUCCESS", value)]


def test_a_million_results_are_one_row_that_says_that_they_are_too_many(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}))
    found = files(
        tmp_path, "model,performance,metric\n" + "a,1,x\n" * 1_000_000, "model,performance,metric\na,1,x\n"
    )
    verdict = judged(plan, tmp_path, outcome(tmp_path, files=found))
    assert verdict.status is Status.FAILURE
    assert len(verdict.rows) == 1
    assert verdict.reason == (
        "cannot take the results of n0: rank0/r.csv, which has 1000000 rows: it has more than 10000 rows"
    )


def test_a_result_says_what_it_was_measured_with_and_not_where(tmp_path: Path) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv", "training_precision": "bf16"}))
    text = (
        "model,performance,metric,training_precision,test_duration,machine_name,docker_sha\n"
        "a,1,x,fp8,3.5,evil,evil\nb,1,x,,,evil,evil\n"
    )
    rows = judged(plan, tmp_path, outcome(tmp_path, files=files(tmp_path, text), image_id="sha256:1")).rows
    assert [(row["training_precision"], row["test_duration"]) for row in rows] == [
        ("fp8", "3.5"),
        ("bf16", "1.50"),
    ]
    assert {(row["machine_name"], row["docker_sha"]) for row in rows} == {("login", "sha256:1")}


def test_commit_and_data_of_the_nodes_are_in_every_row_and_differences_in_the_notes(tmp_path: Path) -> None:
    found = []
    for node, commit in enumerate(("a" * 40, "b" * 40)):
        for name, text in (("git_commit", commit), ("data.json", '{"dataname": "d", "data_size": 5}')):
            kept = f"results/n{node}/.phalanx/{name}"
            (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / kept).write_text(text)
            found.append(CollectedFile(f"n{node}", node, f".phalanx/{name}", kept))
    verdict = judged(plan_for_tags(models()), tmp_path, outcome(tmp_path, ("nothing",), files=tuple(found)))
    [row] = verdict.rows
    assert (row["status"], row["git_commit"], row["dataname"], row["data_size"]) == (
        "FAILURE",
        "a" * 40,
        "d",
        "5",
    )
    assert any("differs between nodes: that of n0 is kept, not that of n1" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("cell", "kept"),
    [("2.5", "2.5"), ("0", "0"), ("inf", "1.50"), ("-1", "1.50"), ("1e999", "1.50"), ("3s", "3s")],
)
def test_a_result_tells_how_long_it_took_in_seconds_or_the_run_does(
    tmp_path: Path, cell: str, kept: str
) -> None:
    plan = plan_for_tags(models({"multiple_results": "r.csv"}))
    text = f"model,performance,metric,test_duration\na,1,x,{cell}\n"
    verdict = judged(plan, tmp_path, outcome(tmp_path, files=files(tmp_path, text)))
    assert [row["test_duration"] for row in verdict.rows] == [kept]
