"""What Slurm says of jobs and nodes is read as it was printed, and a new word is never a verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.targets import slurm_text
from phalanx.controller.targets.base import AllocationHealth

from tests.targets.recordings import recorded

RUNNING, ENDED, UNKNOWN = AllocationHealth.RUNNING, AllocationHealth.ENDED, AllocationHealth.UNKNOWN


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("RUNNING", RUNNING),
        ("CONFIGURING", RUNNING),
        ("SUSPENDED", RUNNING),
        ("COMPLETING", ENDED),
        ("CANCELLED by 1000", ENDED),
        ("CANCELLED+", ENDED),
        ("TIMEOUT", ENDED),
        ("PREEMPTED", ENDED),
        ("NODE_FAIL", ENDED),
        ("PENDING", ENDED),
        ("QUANTUM_ENTANGLED", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_state_says_whether_the_nodes_are_still_ours(state: str, health: AllocationHealth) -> None:
    assert slurm_text.health_of(state) is health


def test_a_running_job_is_reported_with_the_time_it_has_left() -> None:
    line = slurm_text.parse_job_state(recorded("squeue_running"))
    assert line is not None
    assert (line.report().health, line.report().state) == (RUNNING, "RUNNING")
    assert line.report().reason == "UNLIMITED left"


def test_a_job_that_waits_is_told_in_words_with_slurms_reason() -> None:
    line = slurm_text.parse_job_state(recorded("squeue_pending"))
    assert line is not None
    assert line.words() == "PENDING (PartitionConfig)"


def test_the_expected_start_of_a_waiting_job_is_told() -> None:
    line = slurm_text.parse_job_state("PENDING|Resources|4:00:00|2026-01-01T10:00:00\n")
    assert line is not None
    assert line.words() == "PENDING (Resources), expected to start 2026-01-01T10:00:00"


def test_a_cancelled_job_is_over_for_the_run_but_not_gone_while_it_completes() -> None:
    line = slurm_text.parse_job_state(recorded("squeue_cancelled"))
    assert line is not None
    assert line.report().health is ENDED
    assert not slurm_text.is_over(line.state)
    assert slurm_text.is_over("CANCELLED")


def test_an_empty_answer_names_no_job() -> None:
    assert slurm_text.parse_job_state("\n") is None
    assert slurm_text.parse_job(recorded("scontrol_unknown_job")) is None


def test_an_unknown_job_is_gone_and_a_silent_slurmctld_is_not() -> None:
    assert slurm_text.says_gone(recorded("squeue_unknown_job"))
    assert slurm_text.says_gone(recorded("scancel_step_gone"))
    assert not slurm_text.says_gone("Socket timed out on send/recv operation")


def test_a_job_record_holds_its_nodes_and_state() -> None:
    job = slurm_text.parse_job(recorded("scontrol_job_running"))
    assert job is not None
    assert (job.state, job.node_list, job.reason) == ("RUNNING", "n[1-4]", "")


def test_a_job_record_of_a_newer_slurm_is_read_too() -> None:
    job = slurm_text.parse_job(recorded("scontrol_job_configuring", "documented"))
    assert job is not None
    assert (job.job_id, job.state, job.end) == ("881240", "CONFIGURING", "2026-01-01T14:00:03")
    assert slurm_text.expand(job.node_list) == ("node001", "node002", "node003", "node007", "big1")


def test_nodes_in_order_give_no_reason_for_trouble() -> None:
    nodes = slurm_text.parse_nodes(recorded("scontrol_nodes"))
    assert {name: record.trouble() for name, record in nodes.items()} == {"n1": "", "n2": ""}


def test_a_drained_node_is_named_with_the_admins_words() -> None:
    node = slurm_text.parse_nodes(recorded("scontrol_node_drained"))["n4"]
    assert node.trouble().startswith("Slurm says the node is DRAIN (bad fan, see ticket 12=13 [root@")


def test_a_node_that_does_not_respond_is_told_from_one_that_is_well() -> None:
    nodes = slurm_text.parse_nodes(recorded("scontrol_nodes", "documented"))
    troubles = {name: record.trouble() for name, record in nodes.items()}
    assert troubles["node001"] == ""
    assert troubles["node002"].startswith(
        "Slurm says the node is DOWN, DRAIN, not responding (Not responding"
    )
    assert troubles["node003"] == "Slurm says the node is POWERED_DOWN"
    assert troubles["node004"] == "Slurm says the node is NOT_RESPONDING"


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("sacct_cancelled", "CANCELLED by 1000", "exit code 0:15"),
        ("sacct_timeout", "TIMEOUT", "exit code 0:0"),
    ],
)
def test_accounting_remembers_how_a_job_ended(name: str, state: str, reason: str) -> None:
    report = slurm_text.parse_accounting(recorded(name, "documented"))
    assert report is not None
    assert (report.health, report.state, report.reason) == (ENDED, state, reason)


def test_partitions_are_read_with_the_default_marked() -> None:
    lines = slurm_text.parse_partitions(recorded("sinfo"))
    assert [(line.partition, line.default, line.count, line.nodes) for line in lines] == [
        ("lab", True, 4, "n[1-4]"),
        ("short", False, 4, "n[1-4]"),
    ]


def test_a_node_list_is_expanded_as_scontrol_does_in_its_own_order() -> None:
    names = recorded("scontrol_hostnames").split()
    # Within one bracket Slurm keeps the order that was written, and itself always writes it ascending.
    assert slurm_text.expand("n3,n[1-2],rack[0-1]n[08-11],login") == tuple(names)


@given(st.text(max_size=200))
def test_no_text_of_the_scheduler_breaks_a_parser(text: str) -> None:
    slurm_text.parse_job_state(text)
    slurm_text.parse_job(text)
    slurm_text.parse_nodes(text)
    slurm_text.parse_accounting(text)
    slurm_text.parse_partitions(text)
    slurm_text.parse_pairs(text)
    assert isinstance(slurm_text.health_of(text), AllocationHealth)


@given(st.text(alphabet="n0123456789[]-,@!&^*{}%/ ", max_size=40))
def test_no_text_breaks_the_reading_of_node_lists(text: str) -> None:
    assert all(isinstance(name, str) for name in slurm_text.expand(text))
