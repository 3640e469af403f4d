"""GPUs of cases that run at once: never two on one, and always one that can go on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.fleet.hardware import Hardware, hardware_of
from phalanx.controller.fleet.slots import Grant, Wish, granted, why_never, wish_of
from phalanx.controller.plan.gpus import ALL, Gpus
from phalanx.controller.plan.model import CasePlan
from phalanx.protocol.messages import ContainerSpec, Device, Runtime

from .test_hardware import A100, MI300, numbered

EIGHT = tuple(range(8))
CASE = CasePlan("train", (), ContainerSpec(Runtime.DOCKER, image="train:1"))


def of_card(count: int, vendor: str = "", named: tuple[int, ...] = ()) -> CasePlan:
    return replace(CASE, gpus=Gpus(vendor, count, "models.json: n_gpus", named=named))


def node(count: int) -> Hardware:
    return hardware_of({"gpus": numbered(A100, count)})


def held(grant: Grant | None) -> Grant:
    assert grant is not None
    return grant


def test_the_lowest_free_gpus_come_first() -> None:
    first = held(granted(Wish(2, EIGHT), []))
    second = held(granted(Wish(3, EIGHT), [first]))
    assert (first.indexes, second.indexes) == ((0, 1), (2, 3, 4))
    assert held(granted(Wish(4, EIGHT), [second])).indexes == (0, 1, 5, 6)
    assert granted(Wish(4, EIGHT), [first, second]) is None


def test_all_waits_for_an_empty_node_and_keeps_others_out() -> None:
    few = held(granted(Wish(1, EIGHT), []))
    assert granted(Wish(ALL, EIGHT), [few]) is None
    everything = held(granted(Wish(ALL, EIGHT), []))
    assert everything.indexes == EIGHT
    assert granted(Wish(1, EIGHT), [everything]) is None
    assert held(granted(Wish(0, EIGHT), [everything])) == Grant()


def test_where_nobody_knows_the_gpus_one_case_has_them_at_a_time() -> None:
    first = held(granted(Wish(2, None), []))
    assert first == Grant(whole=True)
    assert granted(Wish(1, None), [first]) is None
    assert granted(Wish(0), [first]) == Grant()


def test_one_that_runs_alone_waits_for_all_others_and_they_for_it() -> None:
    nothing = held(granted(Wish(), []))
    assert granted(Wish(alone=True), [nothing]) is None
    alone = held(granted(Wish(alone=True), []))
    assert granted(Wish(), [alone]) is None


wishes = st.builds(
    Wish,
    st.sampled_from([ALL, 0, 1, 2, 3, 5, 8]),
    st.sampled_from([None, EIGHT, (2, 3), (0, 3, 5, 7)]),
    st.booleans(),
).filter(lambda wish: not wish.vain)


@given(st.lists(wishes, max_size=20), st.integers(1, 5), st.randoms())
def test_whatever_ends_when_no_gpu_has_two_cases_and_every_case_has_its_turn(
    waiting: list[Wish], most: int, dice: object
) -> None:
    running: list[tuple[Wish, Grant]] = []
    left = list(waiting)
    while left or running:
        for wish in list(left):
            grants = [grant for _, grant in running]
            if len(running) < most and (grant := granted(wish, grants)) is not None:
                running.append((wish, grant))
                left.remove(wish)
        assert running, "nothing runs, and something waits"
        taken = [index for _, grant in running for index in grant.indexes]
        assert len(taken) == len(set(taken))
        for wish, grant in running:
            assert not (wish.pool and wish.count > 0) or len(grant.indexes) == wish.count
            assert set(grant.indexes) <= set(wish.pool or ())
            others = [one for one in running if one != (wish, grant)]
            assert not grant.alone or len(running) == 1
            assert not grant.whole or not any(other.has_gpus for _, other in others)
        running.pop(dice.randrange(len(running)))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("case", "have", "wish"),
    [
        (of_card(2), [node(8), node(8)], Wish(2, EIGHT)),
        (of_card(2), [node(8), node(4)], Wish(2, (0, 1, 2, 3))),
        (of_card(ALL), [node(4)], Wish(ALL, (0, 1, 2, 3))),
        (of_card(2, named=(4, 5, 6)), [node(8)], Wish(2, (4, 5, 6))),
        (of_card(0), [node(8)], Wish()),
        (CASE, [node(8)], Wish()),
        (of_card(2), [Hardware(), Hardware()], Wish()),
        (of_card(2, "AMD"), [Hardware()], Wish(2, None)),
        (of_card(2), [node(8), None], Wish(2, None)),
        (replace(of_card(2), driven=True), [node(8)], Wish(alone=True)),
        (replace(CASE, container=replace(CASE.container, gpus="all")), [node(8)], Wish(ALL, None)),
        (replace(CASE, container=replace(CASE.container, privileged=True)), [node(8)], Wish(ALL, None)),
        (
            replace(of_card(1), container=replace(CASE.container, devices=(Device("/dev/dri", "/dev/dri"),))),
            [node(8)],
            Wish(ALL, None),
        ),
    ],
)
def test_what_a_case_needs_is_from_its_plan_and_from_what_nodes_have(
    case: CasePlan, have: list[Hardware | None], wish: Wish
) -> None:
    assert wish_of(case, have) == wish


def test_more_than_a_node_has_is_refused_by_its_name() -> None:
    case, have = of_card(5), [node(8), node(4)]
    assert why_never(case, wish_of(case, have), ("n1", "n2"), have) == (
        "not run: it needs 5 GPUs on every node (models.json: n_gpus), and n2 has 4"
    )
    assert why_never(case, wish_of(case, [node(8)]), ("n1",), [node(8)]) == ""


def test_render_nodes_are_known_by_number_unless_partitions_share_one() -> None:
    assert hardware_of({"gpus": numbered(MI300, 3, 128)}).render_numbers == (128, 129, 130)
    shared = [{**gpu, "render_number": 128} for gpu in numbered(MI300, 3)]
    assert hardware_of({"gpus": shared}).render_numbers == ()
    assert hardware_of({"gpus": numbered(MI300, 3)}).render_numbers == ()
