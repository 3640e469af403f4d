"""One image on every node, decided: who is asked what, who reads from whom, what a failing node changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from phalanx.controller.exits import Exit
from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet import instructions as ins
from phalanx.controller.fleet.imaging import Imaging
from phalanx.controller.plan.model import ImagePlan
from phalanx.protocol.messages import ImageQuery, SeedLayers, SyncStop

IMAGE = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
NODES = ("n1", "n2", "n3", "n4")
LAYERS = (10_000_000, 20_000_000, 5_000_000)
SOURCE = ev.ImageSource("archive a.tar", "a:1", IMAGE, sum(LAYERS), layers=LAYERS)
HELD = ev.LayersOnNode("", False, 0, (), True, 2**40, 2**40)


def imaging(archive: str = "a.tar", nodes: tuple[str, ...] = NODES, image_id: str = "") -> Imaging:
    return Imaging(ImagePlan("a:1", archive, image_id=image_id), nodes)


def has(node: str, image_id: str = "", error: str = "") -> ev.ImageOnNode:
    return ev.ImageOnNode(node, "a:1", image_id, error)


def heard(one: Imaging, *events: ev.Event) -> list[ins.Instruction]:
    """Everything that it asks for, on these events in order."""
    return [instruction for event in events for instruction in one.on(event)]


def of(kind: type[ins.Instruction], out: list[ins.Instruction]) -> list[ins.Instruction]:
    return [instruction for instruction in out if isinstance(instruction, kind)]


def asked(one: Imaging, **have: str) -> list[ins.Instruction]:
    """From its beginning to the question for the source."""
    assert one.begin() == [ins.Tell(one.nodes, ImageQuery(1, "a:1"))]
    return heard(one, *(has(node, have.get(node, "")) for node in one.nodes))


def syncing(one: Imaging, **first: int) -> ins.SyncImage:
    """On to the moment in which nodes are told; ``first``: layers that an engine has already."""
    asked(one)
    heard(one, SOURCE)
    out = heard(
        one,
        *(ev.RelayOnNode(node, 4711) for node in one.nodes),
        *(replace(HELD, node=node, in_engine=first.get(node, 0)) for node in one.nodes),
    )
    (sync,) = of(ins.SyncImage, out)
    assert isinstance(sync, ins.SyncImage)
    return sync


def test_nothing_moves_when_every_node_has_the_image() -> None:
    one = imaging(archive="")
    (record,) = asked(one, **dict.fromkeys(NODES, IMAGE))
    assert one.done
    assert record == ins.Record(ev.ImageReady("a:1", IMAGE, 4, 0.0))


def test_a_source_is_looked_for_where_a_node_has_it_or_might_pull_it() -> None:
    assert asked(imaging(archive=""), n3=IMAGE) == [ins.FindImage("a:1", "", "n3", NODES)]
    assert asked(imaging(archive="")) == [ins.FindImage("a:1", "", "", NODES)]


OTHER = "sha256:" + "b" * 64


def test_of_a_name_that_has_come_to_mean_another_image_the_right_one_is_looked_for() -> None:
    one = imaging(archive="", image_id=IMAGE)
    assert asked(one, n1=OTHER, n2=IMAGE, n3=OTHER, n4=OTHER) == [
        ins.FindImage("a:1", "", "n2", NODES, image_id=IMAGE)
    ]
    out = heard(one, replace(SOURCE, where="engine of node n2", node="n2"))
    assert out[0] == ins.AskLayers(("n1", "n3", "n4"))
    only_others = imaging(archive="", image_id=IMAGE)
    assert asked(only_others, **dict.fromkeys(NODES, OTHER)) == [
        ins.FindImage("a:1", "", "", NODES, image_id=IMAGE)
    ]
    heard(only_others, replace(SOURCE, image_id=OTHER, where="engine of the login node"))
    assert only_others.trouble is not None
    assert only_others.trouble.reason == (
        "a:1 is sha256:bbbbbbbbbbbb (engine of the login node), and "
        f"{IMAGE[:19]} is what was built under that name; build it again, or say --image to run what is there"
    )


MANIFEST, ZIPPED = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def stored(node: str, image_id: str, mark: str = "f") -> ev.ImageOnNode:
    """What a node says whose engine calls images by their manifests."""
    return ev.ImageOnNode(node, "a:1", image_id, likeness=mark, by_manifest=True)


def test_nothing_moves_between_stores_that_call_one_image_differently() -> None:
    one = imaging(archive="", nodes=("n1", "n2", "n3"))
    one.begin()
    graph = replace(has("n2", IMAGE), likeness="f")
    (record,) = heard(one, stored("n1", MANIFEST), graph, stored("n3", ZIPPED))
    assert record == ins.Record(ev.ImageReady("a:1", IMAGE, 3, 0.0))


def test_what_was_built_is_known_by_the_login_nodes_engine_where_ids_say_nothing() -> None:
    nodes = ("n1", "n2")
    one = imaging(archive="", nodes=nodes, image_id=MANIFEST)
    one.begin()
    out = heard(one, *(stored(node, ZIPPED) for node in nodes))
    assert out == [ins.FindImage("a:1", "", "", nodes, image_id=MANIFEST, held="f")]
    known = ev.ImageSource(
        "every node has it, and the login node", "a:1", MANIFEST, 0, likeness="f", engine_id=MANIFEST
    )
    (record,) = heard(one, known)
    assert record == ins.Record(ev.ImageReady("a:1", ZIPPED, 2, 0.0))
    exact = imaging(archive="", nodes=nodes, image_id=MANIFEST)
    exact.begin()
    out = heard(exact, *(replace(has(node, OTHER), likeness="f") for node in nodes))
    assert out == [ins.FindImage("a:1", "", "", nodes, image_id=MANIFEST)], "their ids say that it is another"


def test_a_node_that_gives_the_image_has_it_under_its_own_id() -> None:
    one = imaging(archive="", nodes=("n1", "n2"))
    asked(one)
    pulled = replace(SOURCE, where="a registry", node="n1", engine_id=MANIFEST, likeness="f")
    heard(one, pulled, *(ev.RelayOnNode(node, 4711) for node in one.nodes), replace(HELD, node="n2"))
    assert one.has["n1"].by_manifest
    (record,) = heard(one, stored("n2", ZIPPED))
    assert isinstance(record, ins.Record)
    assert isinstance(record.event, ev.ImageReady)
    assert record.event.image_id == IMAGE, "two ids of manifests: the digest of the configuration is common"


def test_those_that_lack_it_are_asked_what_they_hold_and_open_their_relays() -> None:
    one = imaging()
    asked(one, n2=IMAGE)
    rest = ("n1", "n3", "n4")
    assert heard(one, SOURCE) == [ins.AskLayers(rest), ins.OpenRelays(rest)]


def test_a_single_node_that_lacks_it_needs_no_relay() -> None:
    one = imaging()
    asked(one, n1=IMAGE, n2=IMAGE, n3=IMAGE)
    assert heard(one, SOURCE) == [ins.AskLayers(("n4",))]


def test_a_seeding_node_serves_and_is_asked_nothing() -> None:
    one = imaging(archive="")
    asked(one, n3=IMAGE)
    out = heard(one, replace(SOURCE, where="engine of node n3", node="n3"))
    assert out == [ins.AskLayers(("n1", "n2", "n4")), ins.OpenRelays(("n3", "n1", "n2", "n4"))]


def test_a_node_whose_image_nobody_lacks_after_all_need_not_keep_its_export() -> None:
    one = imaging(archive="")
    asked(one, n3=IMAGE)
    others = ("n1", "n2", "n4")
    heard(one, replace(SOURCE, where="engine of node n3", node="n3"))
    heard(one, *(ev.RelayOnNode(node, 4711) for node in NODES))
    out = heard(one, *(replace(HELD, node=node, present=True) for node in others))
    assert out[0] == ins.Tell(("n3",), SyncStop(1))
    assert one.done


def test_nodes_read_from_one_another_in_a_chain() -> None:
    one = imaging()
    sync = syncing(one)
    assert sync.first == dict.fromkeys(NODES, 0)
    assert sync.parents == {
        "n1": (("",),),
        "n2": (("n1", ""),),
        "n3": (("n2", "n1", ""),),
        "n4": (("n3", "n2", "n1", ""),),
    }


def test_an_engine_without_deltas_gets_every_layer() -> None:
    one = imaging(nodes=("n1",))
    asked(one)
    heard(one, SOURCE)
    (sync,) = of(ins.SyncImage, heard(one, replace(HELD, node="n1", in_engine=2, deltas=False)))
    assert isinstance(sync, ins.SyncImage)
    assert sync.first == {"n1": 0}


def test_what_an_engine_has_does_not_travel() -> None:
    one = imaging()
    assert syncing(one, n2=2).first == {"n1": 0, "n2": 2, "n3": 0, "n4": 0}
    assert one.plan is not None
    assert one.plan.routes["n2"].bytes == LAYERS[2]
    assert one.plan.saved_bytes == LAYERS[0] + LAYERS[1]


def test_a_layer_that_comes_again_travels_once() -> None:
    one = imaging(nodes=("n1", "n2"))
    asked(one)
    heard(one, replace(SOURCE, layers=(1000, 20_000_000, 1000), repeated=(0,)))
    tight = replace(HELD, free_bytes=64 * 2**20 + 20_001_000)
    heard(
        one,
        *(ev.RelayOnNode(node, 4711) for node in one.nodes),
        *(replace(tight, node=node) for node in one.nodes),
    )
    assert not one.failed
    assert one.plan is not None
    assert {route.bytes for route in one.plan.routes.values()} == {20_001_000}
    assert (one.plan.source_bytes, one.plan.saved_bytes) == (20_001_000, 0)


def test_the_barrier_opens_when_the_last_node_has_verified_it() -> None:
    one = imaging()
    syncing(one)
    assert heard(one, *(has(node, IMAGE) for node in NODES[:3])) == []
    (record,) = heard(one, has("n4", IMAGE))
    assert one.done
    assert record == ins.Record(ev.ImageReady("a:1", IMAGE, 4, 0.0, saved_bytes=0))


def test_a_node_that_fails_is_named_and_the_others_finish_first() -> None:
    one = imaging()
    syncing(one)
    heard(one, has("n2", error="disk full"))
    assert one.trouble is None
    heard(one, has("n1", IMAGE), has("n3", IMAGE))
    assert one.trouble is None
    heard(one, has("n4", IMAGE))
    assert one.trouble is not None
    assert (one.trouble.reason, one.trouble.exit_code) == ("n2: disk full", Exit.IMAGE)


def test_a_child_of_a_failed_node_gets_its_grandparent() -> None:
    one = imaging()
    syncing(one)
    assert heard(one, has("n2", error="disk full")) == [
        ins.ChangeParents({"n3": (("n1", ""),), "n4": (("n3", "n1", ""),)})
    ]


def test_a_lost_node_is_left_behind_and_the_run_fails_for_it() -> None:
    one = imaging()
    syncing(one)
    out = heard(one, ev.AgentLost("n2", "power"))
    assert out == [ins.ChangeParents({"n3": (("n1", ""),), "n4": (("n3", "n1", ""),)})]
    heard(one, *(has(node, IMAGE) for node in ("n1", "n3", "n4")))
    assert one.trouble is not None
    assert (one.trouble.reason, one.trouble.exit_code) == ("n2: it was lost: power", Exit.RUN)


def test_a_slow_node_is_passed_over_and_fed_when_the_others_are_through() -> None:
    one = imaging()
    syncing(one)
    (change,) = heard(one, ev.SlowNodes(("n2",)))
    assert isinstance(change, ins.ChangeParents)
    assert change.parents["n2"] == ()
    assert change.parents["n3"] == (("n1", ""),)
    assert heard(one, has("n1", IMAGE), has("n3", IMAGE)) == []
    (later,) = heard(one, has("n4", IMAGE))
    assert isinstance(later, ins.ChangeParents)
    assert set(later.parents) == {"n2"}
    assert later.parents["n2"] != ()


def test_a_verdict_that_is_taken_back_gives_the_node_its_place_again() -> None:
    one = imaging()
    syncing(one)
    heard(one, ev.SlowNodes(("n2",)))
    (change,) = heard(one, ev.SlowNodes(()))
    assert isinstance(change, ins.ChangeParents)
    assert change.parents["n2"] != ()


def seeded_by_n1(n2_has: int = 0, n2_caches: tuple[int, ...] = ()) -> Imaging:
    """On to the moment in which n2 has it from n1; ``n2_has``: layers that its engine had already."""
    one = imaging(archive="")
    asked(one, n1=IMAGE)
    heard(one, replace(SOURCE, node="n1"))
    heard(
        one,
        *(ev.RelayOnNode(node, 4711) for node in NODES),
        replace(HELD, node="n2", in_engine=n2_has, in_cache=n2_caches),
        *(replace(HELD, node=node) for node in NODES[2:]),
        has("n2", IMAGE),
    )
    return one


def test_a_lost_seed_is_followed_by_a_node_that_has_it_all() -> None:
    one = seeded_by_n1()
    (change,) = heard(one, ev.AgentLost("n1", "power"))
    assert isinstance(change, ins.ChangeParents)
    assert all("n1" not in names for lists in change.parents.values() for names in lists)
    assert all(lists[0][-1] == "n2" for lists in change.parents.values())


def test_a_lost_seed_that_nobody_can_follow_ends_it() -> None:
    one = imaging(archive="")
    asked(one, n1=IMAGE)
    heard(one, replace(SOURCE, node="n1"))
    heard(one, ev.AgentLost("n1", "power"))
    assert one.trouble is not None
    assert "n1, which had the image, was lost" in one.trouble.reason


@pytest.mark.parametrize(
    ("short", "words"),
    [
        ({"free_bytes": 90_000_000}, "35000000 bytes"),
        ({"engine_free_bytes": 40_000_000}, "its engine needs"),
    ],
)
def test_a_node_without_room_is_refused_before_anything_moves_to_it(
    short: dict[str, int], words: str
) -> None:
    one = imaging()
    asked(one)
    heard(one, SOURCE, *(ev.RelayOnNode(node, 4711) for node in NODES))
    full = replace(HELD, node="n2", **short)
    (told,) = of(ins.Record, heard(one, full))
    assert isinstance(told, ins.Record)
    assert isinstance(told.event, ev.ImageOnNode)
    assert words in told.event.error
    (sync,) = of(ins.SyncImage, heard(one, *(replace(HELD, node=node) for node in ("n1", "n3", "n4"))))
    assert isinstance(sync, ins.SyncImage)
    assert set(sync.parents) == {"n1", "n3", "n4"}


def test_two_images_under_one_name_need_a_source_that_decides() -> None:
    one = imaging(archive="")
    asked(one, n1=IMAGE, n2=OTHER)
    heard(one, replace(SOURCE, where="engine of node n1", node="n1"))
    assert one.trouble is not None
    assert "not the same image on every node" in one.trouble.reason
    decided = imaging()
    asked(decided, n1=IMAGE, n2=OTHER)
    assert of(ins.AskLayers, heard(decided, SOURCE)) == [ins.AskLayers(("n2", "n3", "n4"))]


PINNED = "rocm/vllm@sha256:" + "ab" * 32


@pytest.mark.parametrize("name", [PINNED, IMAGE])
@pytest.mark.parametrize("have", [{}, {"n1": IMAGE}])
def test_a_name_that_no_engine_can_give_is_refused_before_anything_is_pulled_or_exported(
    name: str, have: dict[str, str]
) -> None:
    one = Imaging(ImagePlan(name, ""), NODES)
    assert heard(one, *(has(node, have.get(node, "")) for node in NODES)) == []
    assert one.trouble is not None
    assert one.trouble.exit_code == Exit.IMAGE
    assert one.trouble.reason == (
        f"cannot bring {name} to n[2-4]: no image can be given the name {name}: a digest comes from a "
        "registry and an id from the engine; name it by repository and tag"
    )


def test_a_digest_is_no_trouble_where_nothing_has_to_move() -> None:
    everywhere = Imaging(ImagePlan(PINNED, ""), NODES)
    heard(everywhere, *(has(node, IMAGE) for node in NODES))
    assert everywhere.done
    pulled = Imaging(ImagePlan(PINNED, ""), ("n1",))
    assert heard(pulled, has("n1")) == [ins.FindImage(PINNED, "", "", ("n1",))]
    heard(pulled, replace(SOURCE, reference=PINNED, node="n1"))
    assert pulled.done
    login = Imaging(ImagePlan(PINNED, ""), ("n1",))
    assert of(ins.AskLayers, heard(login, has("n1"), replace(SOURCE, reference=PINNED))) == []
    assert login.trouble is not None
    assert f"cannot bring {PINNED} to n1: no image can be given" in login.trouble.reason


def test_a_source_that_cannot_be_had_says_why() -> None:
    one = imaging()
    asked(one)
    heard(one, ev.ImageSource("", "a:1", "", 0, "no such file"))
    assert one.trouble is not None
    assert (one.trouble.reason, one.trouble.exit_code) == ("no such file", Exit.IMAGE)


@pytest.mark.parametrize("caches", [(), (0, 1)])
def test_a_node_that_got_only_what_it_lacked_has_to_export_it_to_follow_a_lost_seed(
    caches: tuple[int, ...],
) -> None:
    """What its cache has of the rest does not help: its agent has not opened that."""
    one = seeded_by_n1(n2_has=2, n2_caches=caches)
    assert heard(one, ev.AgentLost("n1", "power")) == [ins.SeedOn("n2")]
    seeds, change = heard(one, seeded_by("n2"))
    assert seeds == ins.Tell(("n2",), SeedLayers(1, 0))
    assert isinstance(change, ins.ChangeParents)
    assert change.parents == {"n3": (("n2",),), "n4": (("n3", "n2"),)}


def seeded_by(node: str) -> ev.ImageSource:
    """What is recorded once a node has exported the image."""
    return replace(SOURCE, where=f"engine of node {node}", node=node)


def in_two_engines(*, planned: bool = True) -> Imaging:
    """n1 seeds, n2 has it in its engine as well, n3 and n4 have nothing; on to the plan, or just before."""
    one = imaging(archive="")
    asked(one, n1=IMAGE, n2=IMAGE)
    heard(one, seeded_by("n1"), *(replace(HELD, node=node) for node in ("n3", "n4")))
    out = heard(one, *(ev.RelayOnNode(node, 4711) for node in ("n1", "n3", "n4")[: 3 if planned else 2]))
    assert len(of(ins.SyncImage, out)) == planned
    return one


def test_a_lost_seed_is_followed_by_a_node_whose_engine_has_the_image_too() -> None:
    one = in_two_engines()
    assert heard(one, ev.AgentLost("n1", "power")) == [ins.OpenRelays(("n2",))]
    assert heard(one, ev.SlowNodes(("n3",)), ev.SlowNodes(())) == [], (
        "nobody is sent to who does not serve yet"
    )
    assert heard(one, ev.RelayOnNode("n2", 4711)) == [ins.SeedOn("n2")]
    seeds, change = heard(one, seeded_by("n2"))
    assert seeds == ins.Tell(("n2",), SeedLayers(1, 0))
    assert isinstance(change, ins.ChangeParents)
    assert change.parents == {"n3": (("n2",),), "n4": (("n3", "n2"),)}
    heard(one, has("n3", IMAGE), has("n4", IMAGE))
    assert one.trouble is not None
    assert (one.trouble.reason, one.trouble.exit_code) == ("n1: it was lost: power", Exit.RUN)


def test_a_seed_that_is_lost_before_anyone_reads_is_the_root_of_no_plan() -> None:
    one = in_two_engines(planned=False)
    heard(one, ev.AgentLost("n1", "power"), ev.RelayOnNode("n2", 4711))
    assert heard(one, ev.RelayOnNode("n4", 4711)) == [], "all have answered, and n2 is not through"
    (_, sync) = heard(one, seeded_by("n2"))
    assert isinstance(sync, ins.SyncImage)
    assert sync.parents == {"n3": (("n2",),), "n4": (("n3", "n2"),)}


def test_who_follows_a_lost_seed_may_be_lost_or_fail_as_well() -> None:
    one = imaging(archive="")
    asked(one, n1=IMAGE, n2=IMAGE, n3=IMAGE)
    heard(one, seeded_by("n1"), ev.RelayOnNode("n1", 1), ev.RelayOnNode("n4", 1), replace(HELD, node="n4"))
    heard(one, ev.AgentLost("n1", "power"))
    assert heard(one, ev.AgentLost("n2", "power"), ev.RelayOnNode("n3", 1)) == [
        ins.OpenRelays(("n3",)),
        ins.SeedOn("n3"),
    ]
    heard(one, ev.ImageSource("", "a:1", "", 0, "n3: no room"))
    assert one.trouble is not None
    assert one.trouble.reason == "n3: no room"
    nobody = in_two_engines()
    heard(nobody, ev.AgentLost("n1", "power"), ev.AgentLost("n2", "smoke"))
    assert nobody.trouble is not None
    assert nobody.trouble.reason == (
        "n2, which had the image, was lost: smoke; no other node has all of it: bring it again, what nodes "
        "have got of it lies in their caches"
    )
    deaf = in_two_engines()
    heard(deaf, ev.AgentLost("n1", "power"), ev.RelayOnNode("n2", 0, "no port"))
    assert deaf.trouble is not None
    assert deaf.trouble.reason == "n2: no port"


def test_a_seed_is_not_missed_by_nodes_that_only_load() -> None:
    one = imaging(archive="")
    asked(one, n1=IMAGE)
    heard(
        one,
        seeded_by("n1"),
        *(ev.RelayOnNode(node, 4711) for node in NODES),
        *(replace(HELD, node=node, in_engine=3 if node == "n4" else 0) for node in NODES[1:]),
    )
    assert heard(one, ev.ImageArrived("n2"), ev.ImageArrived("n3")) == []
    assert heard(one, ev.AgentLost("n1", "power")) == [], "n4 lacks a name only"
    heard(one, *(has(node, IMAGE) for node in NODES[1:]))
    assert one.trouble is not None
    assert one.trouble.reason == "n1: it was lost: power"


def test_an_export_that_nobody_needs_any_more_is_not_kept() -> None:
    stop = ins.Tell(("n2",), SyncStop(1))
    late = in_two_engines()
    heard(late, ev.AgentLost("n1", "power"), ev.RelayOnNode("n2", 1), ev.ImageArrived("n3"))
    assert heard(late, ev.ImageArrived("n4"), seeded_by("n2")) == [stop]


def test_a_node_that_says_what_cannot_be_is_refused_and_the_others_go_on() -> None:
    one = imaging()
    asked(one)
    heard(one, SOURCE)
    out = heard(
        one,
        *(ev.RelayOnNode(node, 4711) for node in NODES),
        *(replace(HELD, node=node, in_engine=300 if node == "n2" else 0) for node in NODES),
    )
    (sync,) = of(ins.SyncImage, out)
    assert isinstance(sync, ins.SyncImage)
    assert set(sync.first) == {"n1", "n3", "n4"}
    assert "300 of 3 layers" in one.failed["n2"]
