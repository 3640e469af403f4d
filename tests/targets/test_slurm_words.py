"""srun's and salloc's own words reach the node they are about, with the sentence a person needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.targets import slurm_words

from tests.targets.recordings import recorded

NODES = ("n1", "n2", "n3", "n4")


def sorted_by_node(text: str, nodes: tuple[str, ...] = NODES) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        spoken = slurm_words.attribute(line, nodes)
        for node in spoken.nodes or ("",):
            found.setdefault(node, []).append(spoken.text)
    return found


def test_the_exit_of_one_task_is_about_its_node_alone() -> None:
    said = sorted_by_node(recorded("srun_exit_127"))
    assert "srun: error: n3: task 2: Exited with exit code 127" in said["n3"]
    assert all("127" not in line for node in ("n1", "n2", "n4", "") for line in said[node])


def test_a_label_is_turned_into_the_node_and_taken_off() -> None:
    said = sorted_by_node(recorded("srun_not_found"))
    assert "slurmstepd-n4: error: execve(): /bin/nothing: No such file or directory" in said["n4"]


def test_the_end_of_a_step_is_not_blamed_on_its_first_node() -> None:
    said = sorted_by_node(recorded("srun_scancel_term"))
    assert any("*** STEP" in line for line in said[""])
    assert said["n1"] == ["up n1", "got TERM on n1"]


def test_groups_of_nodes_in_one_line_are_all_told() -> None:
    nodes = ("node001", "node002", "node003", "node004")
    said = sorted_by_node(recorded("srun_groups", "documented"), nodes)
    assert (
        said["node001"]
        == said["node002"]
        == ["srun: error: node[001-002]: tasks 0-1: Exited with exit code 1"]
    )
    assert slurm_words.explain(said["node003"]).endswith("→ the node's memory limit ended the agent")
    assert slurm_words.explain(said["node004"]).endswith("is /tmp mounted noexec?")


def test_no_interpreter_is_explained_from_the_exit_status() -> None:
    words = slurm_words.explain(["srun: error: n3: task 2: Exited with exit code 127"])
    assert words == (
        "srun: error: n3: task 2: Exited with exit code 127 → no Python 3 was found on the node; "
        "name one that is there with --agent-python"
    )


def test_what_the_agents_file_says_itself_comes_before_a_guess() -> None:
    words = slurm_words.explain(
        [
            "phalanx-agent: cannot start on n3: no Python 3.11",
            "srun: error: n3: task 2: Exited with exit code 127",
        ]
    )
    assert words.endswith("code 127 → phalanx-agent: cannot start on n3: no Python 3.11")


@pytest.mark.parametrize("name", ["srun_slurmd_silent", "srun_slurmd_gone", "srun_bcast_slurmd_gone"])
def test_one_node_that_cannot_be_reached_is_named_and_the_others_are_its_victims(name: str) -> None:
    text = recorded(name)
    failed = [node for line in text.splitlines() for node in slurm_words.failed_nodes(line)]
    said = sorted_by_node(text)
    assert failed == ["n3"]
    assert slurm_words.explain(said["n3"]).endswith("→ its slurmd does not answer")
    victim = slurm_words.explain(said.get("n1", []), said[""], failed)
    assert victim == "srun ended the agents of all nodes because it could not start one on n3"


def test_an_allocation_that_is_over_explains_every_missing_node() -> None:
    said = sorted_by_node(recorded("srun_job_over"))
    assert "allocation is over" in slurm_words.explain([], said[""])


def test_a_wait_for_a_step_is_explained_while_it_lasts_and_not_after() -> None:
    waiting = "srun: Job 1 step creation temporarily disabled, retrying (Requested nodes are busy)"
    assert "--overlap" in slurm_words.explain([], [waiting])
    assert slurm_words.explain([], [waiting, "srun: Step created for job 1"]) == ""


def test_nothing_said_explains_nothing() -> None:
    assert slurm_words.explain([], ["srun: cluster configuration lacks support for cpu binding"]) == ""


def test_the_number_of_a_job_is_known_as_soon_as_it_waits() -> None:
    numbers = [
        slurm_words.job_number(line) for line in recorded("salloc_pending_then_cancelled").splitlines()
    ]
    assert numbers == ["", "2", "2", "", ""]
    granted = recorded("salloc_granted", "documented").splitlines()
    assert [slurm_words.granted_number(line) for line in granted].count("881240") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "salloc_bad_partition",
            "invalid partition specified: nope; Job submit/allocate failed: Invalid partition name specified",
        ),
        ("salloc_bad_gres", "Invalid generic resource (gres) specification"),
        ("salloc_bad_option", "unrecognized option '--bogus'; Try \"salloc --help\" for more information"),
        (
            "salloc_pending_then_cancelled",
            "Job has been cancelled; Job submit/allocate failed: Job/step already completing or completed",
        ),
        ("squeue_unknown_job", "Invalid job id specified"),
        ("sacct_disabled", "Slurm accounting storage is disabled"),
    ],
)
def test_a_refusal_is_told_in_slurms_own_words(name: str, words: str) -> None:
    assert slurm_words.error_words(recorded(name)) == words


def test_only_trouble_that_may_pass_is_tried_again() -> None:
    assert slurm_words.is_transient("squeue: error: Socket timed out on send/recv operation")
    assert slurm_words.is_transient("Unable to contact slurm controller (connect failure)")
    assert not slurm_words.is_transient(recorded("salloc_bad_partition"))
    assert not slurm_words.is_transient(recorded("squeue_unknown_job"))


def test_a_pending_reason_gets_a_sentence_and_a_new_one_none() -> None:
    assert slurm_words.reason_hint("Resources") == "it waits for nodes to become free"
    assert "drained" in slurm_words.reason_hint("ReqNodeNotAvail, UnavailableNodes:n4")
    assert slurm_words.reason_hint("MoonPhase") == ""


@given(st.text(max_size=120))
def test_any_line_is_about_known_nodes_or_none(line: str) -> None:
    assert set(slurm_words.attribute(line, NODES).nodes) <= set(NODES)
    assert isinstance(slurm_words.explain([line], [line]), str)
