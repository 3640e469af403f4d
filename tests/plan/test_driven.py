"""A case whose script drives the nodes: its environment is for all, its rows are where it leaves them."""

from __future__ import annotations

from typing import Any

import pytest
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import CasePlan, Plan, SlurmOptions
from phalanx.controller.workflow.errors import InputError

from .making import models

SLURM = SlurmOptions(partition="p")


def driven(context: str = "", card: dict[str, Any] | None = None, **more: Any) -> Plan:
    given = {
        "distributed": {"launcher": "slurm_multi"},
        "env_vars": {"DOCKER_IMAGE_NAME": "card:1"},
        **(card or {}),
    }
    return plan_for_tags(
        models(given, context=context, **{"nodes": 2, "slurm": SLURM, "environ": {}, **more})
    )


def only(plan: Plan) -> CasePlan:
    [case] = plan.cases
    return case


def test_nothing_of_one_node_is_in_what_srun_hands_on() -> None:
    names = only(driven()).env.keys()
    assert {"MAD_TOTAL_NODES", "SLURM_SUBMIT_DIR"} <= names
    assert not {"MAD_NODE_RANK", "NODE_RANK", "RANK"} & names
    own = only(driven(context='{"env_vars": {"MAD_NODE_RANK": "5", "SLURM_SUBMIT_DIR": "/else"}}')).env
    assert (own["MAD_NODE_RANK"].value, own["SLURM_SUBMIT_DIR"].value) == ("5", "/else")


def test_on_this_machine_there_is_no_place_of_submission() -> None:
    assert "SLURM_SUBMIT_DIR" not in only(driven(slurm=SlurmOptions(), target="local", nodes=1)).env


def test_the_image_that_the_script_reads_is_the_one_that_the_nodes_get() -> None:
    plan = driven(context='{"docker_env_vars": {"DOCKER_IMAGE_NAME": "other:2"}}')
    assert only(plan).env["DOCKER_IMAGE_NAME"].value == "card:1"
    [words] = [one for one in plan.warnings if "DOCKER_IMAGE_NAME is the image" in one]
    assert words.endswith("every node gets, card:1; say another one with --image NAME")
    named = driven(image="said:3")
    assert only(named).env["DOCKER_IMAGE_NAME"].value == "said:3"
    assert [image.reference for image in named.images] == ["said:3"]
    assert not [one for one in named.warnings if "is not used" in one]


def test_rows_are_looked_for_where_madengine_looks_and_in_results_dir_first() -> None:
    assert only(driven(environ={"USER": "me"})).result.places == (
        "perf.csv",
        "/shared_inference/me/{JOB_ID}/perf.csv",
        "/shared_inference/me/model_blog_logs/{JOB_ID}/perf.csv",
        "/proj/slurm_output/perf_csv/*{JOB_ID}*.csv",
    )
    said = only(driven('{"slurm": {"results_dir": "/a"}}', {"slurm": {"results_dir": "b"}}))
    assert said.result.places == ("/a/perf*.csv", "perf.csv", "/proj/slurm_output/perf_csv/*{JOB_ID}*.csv")
    card = only(driven(card={"slurm": {"results_dir": "b"}, "multiple_results": "r.csv"}))
    assert card.result.places[:2] == ("/proj/b/perf*.csv", "r.csv")
    assert only(driven(card={"distributed": {}})).result.places == ()


@pytest.mark.parametrize("said", [["a"], "${HOME}/x"])
def test_a_results_dir_that_is_no_path_is_refused(said: object) -> None:
    with pytest.raises(InputError, match=r"models.json: \[0\] \(m0\): slurm.results_dir"):
        driven(card={"slurm": {"results_dir": said}})


def test_all_is_done_on_the_first_node_but_the_folder_is_cloned_on_each() -> None:
    case = only(driven(card={"url": "https://example.invalid/team/serve"}))
    assert {step.name: step.per for step in case.steps} == {
        "facts": "first",
        "clone": "node",
        "main": "first",
    }
    assert case.driven
    assert not only(driven(card={"distributed": {}})).driven
