"""Plans for images: what holds for every plan, whatever the nodes have, and what replanning leaves alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.images.planner import (
    CONTROLLER,
    PARENTS_MAX,
    Candidate,
    Links,
    SyncPlan,
    make_plan,
)
from phalanx.controller.images.predict import loading_after, stripe_bytes
from phalanx.controller.images.topology import ROOT, downward, k_ary, two_tree

MIB = 1 << 20
#: A node takes in as fast as it sends, and a third of it.
EVEN = Links(uplink=3.125e9, ingest=3.125e9)
FAST_UPLINK = Links(uplink=3.125e9, ingest=0.9e9)
SIZES = (90 * MIB, 1, 40 * MIB, 0, 7 * MIB, 12 * MIB)

LINKS = st.sampled_from([Links(), EVEN, FAST_UPLINK])
ROOTS = st.sampled_from([CONTROLLER, "seed"])


@st.composite
def candidates(draw: st.DrawFn, most: int = 40) -> list[Candidate]:
    count = draw(st.integers(0, most))
    kinds = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(SIZES)),
                st.frozensets(st.integers(0, len(SIZES) - 1)),
                st.booleans(),
                st.sampled_from(["", "r1", "r2"]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=count, max_size=count))
    return [Candidate(f"n{index:03}", *kind) for index, kind in enumerate(chosen)]


def alike(count: int) -> list[Candidate]:
    """Nodes that have nothing."""
    return [Candidate(f"n{index:05}", 0) for index in range(count)]


def gives(node: Candidate) -> set[int]:
    """The layers that its agent opens, and so serves: those that it is to load, cached or not."""
    return set(range(node.first, len(SIZES)))


def plan_of(nodes: Sequence[Candidate], links: Links = EVEN, previous: SyncPlan | None = None) -> SyncPlan:
    return make_plan(SIZES, nodes, CONTROLLER, links, previous)


def firsts(plan: SyncPlan) -> dict[str, tuple[str, ...]]:
    """Per node the first parent in each stripe."""
    return {name: tuple(line[0] for line in route.parents if line) for name, route in plan.routes.items()}


def changed(before: SyncPlan, after: SyncPlan) -> set[str]:
    """Nodes in both plans that read from someone else now."""
    old, new = firsts(before), firsts(after)
    return {name for name in old.keys() & new.keys() if old[name] != new[name]}


@given(nodes=candidates(), root=ROOTS, links=LINKS)
def test_every_node_reaches_the_root_and_none_waits_in_a_circle(
    nodes: list[Candidate], root: str, links: Links
) -> None:
    plan = make_plan(SIZES, nodes, root, links)
    assert set(plan.routes) == {node.name for node in nodes}
    for stripe in range(plan.stripes):
        for route in plan.routes.values():
            line = route.parents[stripe]
            assert bool(line) == bool(route.missing)
            if not line:
                continue
            assert line[-1] == root
            assert len(line) <= PARENTS_MAX
            assert root not in line[:-1]
            assert CONTROLLER in line if root == CONTROLLER else CONTROLLER not in line
            assert len(set(line)) == len(line)
    # Whoever anyone may read from, at any time, has fewer ancestors: an order exists, so there is no circle.
    for stripe in range(plan.stripes):
        below: dict[str, set[str]] = {}
        for route in plan.routes.values():
            for parent in route.parents[stripe]:
                below.setdefault(parent, set()).add(route.node)
        left, free = set(plan.routes), [root]
        above = Counter(child for children in below.values() for child in children)
        free += [name for name in left if not above[name]]
        seen = set()
        while free:
            name = free.pop()
            seen.add(name)
            for child in below.get(name, ()):
                above[child] -= 1
                if not above[child]:
                    free.append(child)
        assert left <= seen


@given(nodes=candidates(), root=ROOTS, links=LINKS)
def test_parents_can_give_all_that_their_readers_lack(
    nodes: list[Candidate], root: str, links: Links
) -> None:
    plan = make_plan(SIZES, nodes, root, links)
    given = {node.name: gives(node) for node in nodes}
    for node in nodes:
        route = plan.routes[node.name]
        assert set(route.missing) == set(range(node.first, len(SIZES))) - node.cached
        assert route.bytes == sum(SIZES[layer] for layer in route.missing)
        for line in route.parents:
            for parent in line[:-1]:
                assert set(route.missing) <= given[parent]


@given(nodes=candidates(), root=ROOTS, links=LINKS)
def test_nobody_feeds_more_readers_than_its_shape_allows_but_for_slow_ones(
    nodes: list[Candidate], root: str, links: Links
) -> None:
    plan = make_plan(SIZES, nodes, root, links)
    readers: Counter[str] = Counter()
    for name, parents in firsts(plan).items():
        readers.update(() if plan.routes[name].pendant else parents)
    readers.pop(root, None)
    assert max(readers.values(), default=0) <= plan.fanout
    every = Counter(parent for parents in firsts(plan).values() for parent in parents)
    assert {name: route.children for name, route in plan.routes.items()} == {
        name: every[name] for name in plan.routes
    }


@given(nodes=candidates(), root=ROOTS, links=LINKS)
def test_slow_nodes_feed_nobody_unless_all_are_slow(nodes: list[Candidate], root: str, links: Links) -> None:
    plan = make_plan(SIZES, nodes, root, links)
    needy = [node for node in nodes if plan.routes[node.name].missing]
    pendants = {name for name, route in plan.routes.items() if route.pendant}
    all_slow = all(node.slow for node in needy)
    assert pendants == (set() if all_slow else {node.name for node in needy if node.slow})
    parents = {parent for route in plan.routes.values() for line in route.parents for parent in line}
    assert not pendants & parents


@given(nodes=candidates(), root=ROOTS, links=LINKS, data=st.data())
def test_the_same_nodes_in_any_order_give_the_same_plan(
    nodes: list[Candidate], root: str, links: Links, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(nodes))
    assert make_plan(SIZES, nodes, root, links) == make_plan(SIZES, shuffled, root, links)


@given(nodes=candidates(), root=ROOTS, links=LINKS)
def test_no_prediction_beats_the_links(nodes: list[Candidate], root: str, links: Links) -> None:
    plan = make_plan(SIZES, nodes, root, links)
    most = max((route.bytes for route in plan.routes.values()), default=0)
    assert plan.predicted_s >= max(most / links.uplink, most / links.ingest)
    for route in plan.routes.values():
        assert route.finish_s >= route.bytes / links.rate
    assert plan.loaded_s >= plan.predicted_s
    moved = sum(route.bytes for route in plan.routes.values())
    assert plan.saved_bytes == len(nodes) * sum(SIZES) - moved
    assert plan.source_bytes <= moved


@given(nodes=candidates(), gone=st.integers(0, 39), links=LINKS)
def test_a_plan_made_again_is_as_sound_as_the_first(nodes: list[Candidate], gone: int, links: Links) -> None:
    before = plan_of(nodes, links)
    left = [node for node in nodes if node.name != f"n{gone:03}"]
    after = plan_of(left, links, before)
    assert set(after.routes) == {node.name for node in left}
    assert set(after.order) <= set(after.routes)
    given = {node.name: gives(node) for node in left}
    for route in after.routes.values():
        for line in route.parents:
            for parent in line[:-1]:
                assert set(route.missing) <= given[parent]
    assert plan_of(left, links, after) == after


@pytest.mark.parametrize(
    ("count", "links", "shape"),
    [
        (1, EVEN, "chain"),
        (8, EVEN, "chain"),
        (9, EVEN, "two-tree"),
        (2, FAST_UPLINK, "k-ary"),
        (9, Links(), "two-tree"),
        (100, FAST_UPLINK, "k-ary"),
    ],
)
def test_the_shape_follows_from_the_links_and_the_number_of_nodes(
    count: int, links: Links, shape: str
) -> None:
    plan = plan_of(alike(count), links)
    assert plan.shape == shape
    assert plan.source_bytes == sum(SIZES), "the source sends each byte once"


@pytest.mark.parametrize("count", [9, 10, 16, 31, 32, 33, 100, 1000])
def test_in_two_trees_who_forwards_in_one_is_a_leaf_in_the_other(count: int) -> None:
    first, second = two_tree([count])
    forwards = [{parent for parent in tree if parent != ROOT} for tree in (first, second)]
    assert not forwards[0] & forwards[1]
    for tree in (first, second):
        assert tree.count(ROOT) == 1
        assert max(Counter(parent for parent in tree if parent != ROOT).values()) <= 2
        assert sorted(downward(tree)) == list(range(count))
        assert depth(tree) <= count.bit_length() + 1


@pytest.mark.parametrize("counts", [[8, 4], [9, 4], [1, 1, 1], [2, 2, 9], [5, 6, 7, 8, 1, 3]])
def test_two_trees_over_several_groups_give_nobody_more_than_two_readers(counts: list[int]) -> None:
    trees = two_tree(counts)
    readers = Counter(parent for tree in trees for parent in tree if parent != ROOT)
    assert max(readers.values()) <= 2
    group = [index for index, count in enumerate(counts) for _ in range(count)]
    for tree in trees:
        assert tree.count(ROOT) == 1
        assert sorted(downward(tree)) == list(range(sum(counts)))
        assert all(group[parent] <= group[child] for child, parent in enumerate(tree) if parent != ROOT)


@pytest.mark.parametrize("count", [1, 2, 5, 14, 100, 5000])
@pytest.mark.parametrize("fanout", [2, 3, 4])
def test_a_k_ary_tree_is_as_shallow_as_can_be(count: int, fanout: int) -> None:
    (tree,) = k_ary(count, fanout)
    levels, room = 1, 1
    while room < count:
        room += fanout**levels
        levels += 1
    assert depth(tree) == levels
    assert all(parent < child for child, parent in enumerate(tree))
    assert max(Counter(tree).values()) <= fanout


def depth(tree: list[int]) -> int:
    """Nodes on the longest way down."""
    levels = [0] * len(tree)
    for position in downward(tree):
        levels[position] = 1 + (levels[tree[position]] if tree[position] != ROOT else 0)
    return max(levels)


def test_a_chain_that_loses_a_node_changes_only_the_node_behind_it() -> None:
    nodes = alike(8)
    before = plan_of(nodes)
    for gone in range(8):
        after = plan_of([node for node in nodes if node.name != f"n{gone:05}"], previous=before)
        assert changed(before, after) == ({f"n{gone + 1:05}"} if gone < 7 else set())


def test_a_chain_with_a_slow_node_changes_only_it_and_the_node_behind_it() -> None:
    nodes = alike(8)
    before = plan_of(nodes)
    for slow in range(7):
        marked = [replace(node, slow=node.name == f"n{slow:05}") for node in nodes]
        after = plan_of(marked, previous=before)
        assert changed(before, after) == {f"n{slow:05}", f"n{slow + 1:05}"}
        assert firsts(after)[f"n{slow:05}"] == ("n00007",), "the last in the chain has nobody to feed"


@pytest.mark.parametrize("count", [9, 10, 64, 101])
@pytest.mark.parametrize("links", [EVEN, FAST_UPLINK])
def test_a_tree_that_loses_a_node_changes_its_readers_and_one_that_takes_its_place(
    count: int, links: Links
) -> None:
    nodes = alike(count)
    before = plan_of(nodes, links)
    every = firsts(before)
    for gone in range(count):
        name = f"n{gone:05}"
        after = plan_of([node for node in nodes if node.name != name], links, before)
        assert after.shape == before.shape
        near = {child for child, parents in every.items() if {name, before.order[-1]} & set(parents)}
        # The shift by one: the new last takes the old last's role at the second tree's beginning.
        near |= {child for child, parents in every.items() if before.order[-2] in parents}
        allowed = near | set(before.order[-2:])
        assert changed(before, after) <= allowed
        assert len(changed(before, after)) <= 3 * before.fanout + 2


def test_a_node_that_comes_back_takes_a_place_at_the_end_and_moves_nobody_else() -> None:
    nodes = alike(40)
    less = plan_of(nodes[:20] + nodes[21:])
    again = plan_of(nodes, previous=less)
    assert again.order[:39] == less.order
    assert again.order[39] == "n00020"


def test_nodes_with_a_base_in_the_engine_hang_behind_those_that_lack_it() -> None:
    base = [Candidate(f"b{index}", 4) for index in range(3)]
    plan = plan_of([*base, *alike(2)])
    assert plan.order == ("n00000", "n00001", "b0", "b1", "b2")
    assert plan.routes["b2"].parents == (("b1", "b0", "n00001", "n00000", CONTROLLER),)
    assert plan.routes["b0"].bytes == sum(SIZES[4:])


def test_a_node_that_has_all_blobs_feeds_the_others_instead_of_the_source() -> None:
    cache = Candidate("zz", 0, frozenset(range(len(SIZES))))
    plan = plan_of([*alike(3), cache])
    assert plan.source_bytes == 0
    assert plan.routes["zz"].children == 1
    assert plan.routes["zz"].parents == ((),)
    assert plan.routes["n00001"].parents == (("n00000", "zz", CONTROLLER),)


def test_what_is_cached_of_layers_that_an_engine_has_is_counted_on_by_nobody() -> None:
    """After `v1` came, `v2` has one more layer: all of v1 lies in the caches of those that got it, too."""
    old = [Candidate(f"a{index}", 5, frozenset(range(5))) for index in range(4)]
    plan = plan_of([*old, *alike(2)])
    assert plan.order == ("n00000", "n00001", "a0", "a1", "a2", "a3")
    assert plan.routes["n00001"].parents == (("n00000", CONTROLLER),)
    assert plan.source_bytes == sum(SIZES)
    done = Candidate("zz", len(SIZES), frozenset(range(len(SIZES))))
    assert "zz" not in plan_of([*alike(3), done]).order, "its engine has it all: it opens nothing"


def test_a_slow_node_that_has_all_blobs_feeds_nobody() -> None:
    cache = Candidate("zz", 0, frozenset(range(len(SIZES))), slow=True)
    plan = plan_of([*alike(3), cache])
    assert "zz" not in plan.order
    assert plan.source_bytes == sum(SIZES)


def test_loading_runs_a_layer_behind_the_transfer() -> None:
    links = Links(uplink=100.0, ingest=100.0, load=200.0)
    assert loading_after([400, 200], 0, (0, 1), links) == pytest.approx(1.0), "the last layer alone"
    slow_engine = replace(links, load=50.0)
    assert loading_after([400, 200], 0, (0, 1), slow_engine) == pytest.approx(10.0), "all, from 4 s to 16 s"
    assert loading_after([400, 200], 0, (1,), slow_engine) == pytest.approx(10.0), "one is there at once"
    assert loading_after([400, 200], 0, (), slow_engine) == pytest.approx(12.0), "from the cache"
    assert loading_after([400, 200], 2, (), slow_engine) == 0.0


def test_a_node_that_has_the_image_takes_no_part() -> None:
    plan = plan_of([*alike(2), Candidate("done", len(SIZES))])
    assert plan.routes["done"].bytes == 0
    assert plan.routes["done"].children == 0
    assert "done" not in plan.order


def test_nothing_missing_is_a_plan_of_nothing() -> None:
    plan = plan_of([Candidate("a", len(SIZES)), Candidate("b", len(SIZES))])
    assert (plan.shape, plan.predicted_s, plan.source_bytes) == ("none", 0.0, 0)
    assert plan.saved_bytes == 2 * sum(SIZES)


def test_slow_nodes_are_spread_over_those_with_the_fewest_readers() -> None:
    nodes = [replace(node, slow=index < 4) for index, node in enumerate(alike(12))]
    plan = plan_of(nodes)
    feeders = [plan.routes[f"n{index:05}"].parents[0][0] for index in range(4)]
    assert len(set(feeders)) == 4
    assert feeders[0] == plan.order[-1]


def test_neighbours_in_a_chain_share_a_rack() -> None:
    nodes = [replace(node, rack=f"r{index % 2}") for index, node in enumerate(alike(8))]
    racks = [int(name[1:]) % 2 for name in plan_of(nodes).order]
    assert racks == [0] * 4 + [1] * 4


def test_candidates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot plan for two nodes of one name"):
        plan_of([Candidate("a", 0), Candidate("a", 1)])
    with pytest.raises(ValueError, match="cannot plan for seed: it has the image to give"):
        make_plan(SIZES, [Candidate("seed", 0)], "seed")
    with pytest.raises(ValueError, match="cannot plan for a node without a name"):
        make_plan(SIZES, [Candidate("", 0)], "seed")
    with pytest.raises(ValueError, match="cannot plan for a: layer 9 of 6"):
        plan_of([Candidate("a", 9)])


@given(size=st.integers(0, 100), chunk=st.integers(1, 9), stripes=st.integers(1, 4))
def test_the_stripes_of_a_blob_are_all_of_it(size: int, chunk: int, stripes: int) -> None:
    lengths = [min(chunk, size - start) for start in range(0, size, chunk)]
    for stripe in range(stripes):
        assert stripe_bytes(size, chunk, stripe, stripes) == sum(lengths[stripe::stripes])


def test_a_plan_for_ten_thousand_nodes_is_quick() -> None:
    began = time.process_time()
    plan = plan_of(alike(10_000))
    assert time.process_time() - began < 2.0
    assert plan.predicted_s < 1.5 * sum(SIZES) / EVEN.rate
