"""Rows that a script wrote: laid out by name, over what the plan knows, their status worked out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import Plan
from phalanx.controller.results.case import (
    CaseOutcome,
    CaseVerdict,
    CollectedFile,
    RankLog,
    Status,
    finish_case,
)
from phalanx.controller.results.perf_csv import COLUMNS
from phalanx.protocol.messages import SCRIPT_RESULTS

from ..plan.making import models


def driven(**card: Any) -> Plan:
    given = {"distributed": {"launcher": "slurm_multi"}, "n_gpus": "4", "args": "--a", **card}
    return plan_for_tags(models(given, nodes=2, environ={"USER": "me"}))


def judged(plan: Plan, run_dir: Path, said: str = "", failure: str = "", **left: str) -> CaseVerdict:
    """The verdict of a script that printed this and left these files, ``.csv`` by name."""
    files = []
    for name, text in left.items():
        kept = f"results/{name}.csv"
        (run_dir / "results").mkdir(exist_ok=True)
        (run_dir / kept).write_text(text)
        files.append(CollectedFile("n0", 0, f"{SCRIPT_RESULTS}/{name}.csv", kept))
    (run_dir / "main.out").write_text(said)
    went = CaseOutcome(
        failure=failure, nodes=("n0", "n1"), job_id="12", files=tuple(files),
        logs=(RankLog(-1, "n0", "main.out", "main.err"),),
    )  # fmt: skip
    return finish_case(plan, plan.cases[0], run_dir, went)


def test_columns_are_laid_out_by_their_names_and_unknown_ones_come_after(tmp_path: Path) -> None:
    text = "status,metric,model,gpus_per_node,performance,ttft\nSUCCESS,tok/s,m0_x,8,5.5,12\n"
    verdict = judged(driven(), tmp_path, perf=text)
    assert (verdict.status, verdict.reason) == (Status.SUCCESS, "1 results")
    [row] = verdict.rows
    assert list(row)[: len(COLUMNS) - 1] == [name for name in COLUMNS if name != "status"]
    assert (row["model"], row["performance"], row["metric"], row["ttft"]) == ("m0_x", "5.5", "tok/s", "12")
    assert (row["args"], row["launcher"], row["nnodes"], row["gpus_per_node"]) == (
        "--a",
        "slurm_multi",
        "2",
        "8",
    )


def test_a_row_without_a_value_or_that_says_so_failed(tmp_path: Path) -> None:
    text = "model,performance,metric,status\na,5,x,\nb,nan,x,SUCCESS\nc,7,x,FAILURE\n"
    verdict = judged(driven(), tmp_path, perf=text)
    assert verdict.reason == "3 results, 2 failed"
    assert [(row["model"], row["performance"], row["status"]) for row in verdict.rows] == [
        ("a", "5", "SUCCESS"),
        ("b", "", "FAILURE"),
        ("c", "7", "FAILURE"),
    ]
    verdict = judged(driven(), tmp_path, perf="model,performance,metric\na,,x\n")
    assert (verdict.status, verdict.reason) == (Status.FAILURE, "no row of perf.csv has a performance")


def test_a_row_tells_how_long_it_took_in_seconds_or_the_run_does(tmp_path: Path) -> None:
    text = "model,performance,metric,test_duration\na,5,x,2.5\nb,6,x,inf\n"
    verdict = judged(driven(), tmp_path, perf=text)
    assert [row["test_duration"] for row in verdict.rows] == ["2.5", ""]


def test_several_files_give_their_rows_and_a_copy_gives_none_again(tmp_path: Path) -> None:
    head = "model,performance,metric\n"
    verdict = judged(
        driven(), tmp_path, perf=f"{head}a,5,x\na,5,x\n", perf_b=f"{head}b,6,x\n", perf_super=f"{head}a,5,x\n"
    )
    assert [(row["model"], row["performance"]) for row in verdict.rows] == [
        ("a", "5"),
        ("a", "5"),
        ("b", "6"),
    ]


def test_rows_that_differ_in_a_column_of_their_own_are_no_copies(tmp_path: Path) -> None:
    head = "model,performance,metric,concurrency\n"
    verdict = judged(
        driven(),
        tmp_path,
        perf_c16=f"{head}m,,tok/s,16\nm,10,ttft_ms,16\n",
        perf_c8=f"{head}m,,tok/s,8\nm,10,ttft_ms,8\n",
        perf_copy=f"{head}m,10,ttft_ms,8\n",
        perf_super="model,performance,metric,concurrency,configs\nm,10,ttft_ms,8,{}\n",
    )
    assert [(row["performance"], row["concurrency"]) for row in verdict.rows] == [
        ("", "16"),
        ("10", "16"),
        ("", "8"),
        ("10", "8"),
    ]
    assert [note for note in verdict.notes if "counted once" in note] == [
        f"perf_{name}.csv: rows that an earlier file has as well, counted once: 1"
        for name in ("copy", "super")
    ]


def test_a_file_that_is_no_table_makes_no_success(tmp_path: Path) -> None:
    verdict = judged(driven(), tmp_path, perf="model,performance\na,5\n")
    assert verdict.status is Status.FAILURE
    assert verdict.reason.startswith("cannot use the script's results: perf.csv: it has no column metric")
    head = "model,performance,metric\n"
    verdict = judged(driven(), tmp_path, perf="nothing\n", perf_b=f"{head}b,6,x\n")
    assert verdict.status is Status.SUCCESS
    assert any("perf.csv: it has no column" in note for note in verdict.notes)


def test_what_failed_failed_whatever_was_written(tmp_path: Path) -> None:
    verdict = judged(driven(), tmp_path, failure="exit status 7", perf="model,performance,metric\na,5,x\n")
    assert [row["status"] for row in verdict.rows] == ["FAILURE"]


def test_the_cards_table_has_the_models_name_in_front_as_for_other_models(tmp_path: Path) -> None:
    plan = driven(multiple_results="r.csv")
    verdict = judged(plan, tmp_path, r="model,performance,metric\nx,5,t\n")
    assert [row["model"] for row in verdict.rows] == ["m0_x"]


def test_a_printed_performance_counts_where_no_file_was_left(tmp_path: Path) -> None:
    verdict = judged(driven(), tmp_path, said="performance: 3 x\n")
    assert (verdict.status, verdict.rows[0]["performance"]) == (Status.SUCCESS, "3")


def test_nothing_anywhere_names_the_places_that_were_looked_at(tmp_path: Path) -> None:
    verdict = judged(driven(slurm={"results_dir": "left"}), tmp_path)
    assert verdict.status is Status.FAILURE
    assert verdict.reason == (
        "no line 'performance: VALUE METRIC' in the logs of 1 ranks, and no new file of results: looked at "
        "/proj/left/perf*.csv, perf.csv, /shared_inference/me/12/perf.csv, "
        "/shared_inference/me/model_blog_logs/12/perf.csv, /proj/slurm_output/perf_csv/*12*.csv"
    )


def test_an_error_that_the_script_printed_fails_its_rows(tmp_path: Path) -> None:
    verdict = judged(
        driven(), tmp_path, said="RuntimeError: x\n", perf="model,performance,metric,ttft\na,5,x,1\n"
    )
    assert verdict.reason == "the script ended well, but main.out:1 says: RuntimeError: x"
    assert [(row["performance"], row["status"]) for row in verdict.rows] == [("5", "FAILURE")]
    assert verdict.columns == ("model", "performance", "metric", "ttft")
