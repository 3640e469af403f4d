"""Images from node to node on real links: what travels, who is passed over, what a broken transfer leaves."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab.archive import tiny_image
from tests.lab.image import NAME as BASE
from tests.stories.cluster import Cluster, until
from tests.stories.program import Phalanx, Run
from tests.stories.project import make_project, rows_of
from tests.stories.registry import PASSWORD, USER, registry

pytestmark = pytest.mark.lab
NAME = "sync:1"
LAYER = 4 * 2**20
#: Bytes per second of a link in these stories: one image takes about three seconds.
RATE = "80mbit"
SYNC = ("image", "sync", NAME, "--target", "slurm", "-N4")
#: Lease and silence of a run whose nodes die, so that the story is short.
TIMES = ("--heartbeat", "0.5", "--dead-after", "2", "--lease", "4")


def archive(place: Path, *seeds: int, name: str = "a.tar") -> Path:
    """An image with a layer of 4 MiB of noise for each seed."""
    path = place / name
    layers = [{f"noise-{seed}": random.Random(seed).randbytes(LAYER)} for seed in seeds]
    tiny_image(path, name=NAME, layers=layers)
    return path


@pytest.fixture
def shaped(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster behind slow links, without the image in engines and caches."""
    clear(cluster)
    for node in ("login", *cluster.nodes):
        cluster.repairs.append(partial(unshaped, cluster, node))
        cluster.lab.rate(node, RATE)
    yield cluster
    cluster.mend()
    clear(cluster)


def unshaped(cluster: Cluster, node: str) -> None:
    """A node that was powered off comes back with a link as the lab made it."""
    if node not in cluster.off:
        cluster.lab.rate(node, "max")


def clear(cluster: Cluster) -> None:
    for node in cluster.nodes:
        script = (
            f"docker rmi -f {NAME} $(docker images -q phalanx-partial) >/dev/null 2>&1; "
            "docker image prune -f >/dev/null; "
            "rm -rf /var/tmp/phalanx-*/blobs"
        )
        cluster.lab.exec(node, ["sh", "-c", script])


def sent_by_login(cluster: Cluster) -> int:
    return cluster.lab.traffic()["login"][0]


def have(cluster: Cluster) -> set[str]:
    """Nodes whose engines have the image."""
    there = (node for node in cluster.nodes if node not in cluster.off)
    return {node for node in there if cluster.lab.image_id(node, NAME)}


def parts(cluster: Cluster, node: str) -> list[str]:
    """Ids of parts of images in the node's engine."""
    return cluster.lab.exec(node, ["docker", "images", "-q", "phalanx-partial"]).stdout.split()


def transfer(run: Run, phalanx: Phalanx) -> dict[str, object]:
    told = json.loads(phalanx.ask("status", run.id, "--json").stdout)["image"]["transfer"]
    assert isinstance(told, dict)
    return told


def under_way(run: Run, cluster: Cluster, bytes_sent: int) -> None:
    """Until nodes read and so much has left the login node."""
    run.wait_event("image.planned")
    before = sent_by_login(cluster)
    until(lambda: sent_by_login(cluster) - before > bytes_sent, 20.0, "the transfer is under way")


def test_the_source_sends_the_image_once_and_a_second_sync_sends_nothing(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    path = archive(place, *range(7))
    size = 7 * LAYER
    before = sent_by_login(shaped)
    run = phalanx.run(*SYNC, "--image-archive", path)
    assert have(shaped) == set(shaped.nodes)
    assert sent_by_login(shaped) - before < 1.15 * size + 3_000_000, "the source sent it more than once"
    figures = transfer(run, phalanx)
    assert (figures["shape"], figures["nodes"], figures["saved_bytes"]) == ("chain", 4, 0)
    assert "source sent" in run.stderr
    assert "saved" in run.stderr
    again = phalanx.run(*SYNC, "--image-archive", path)
    assert not again.events("image.planned")
    assert {event["present"] for event in again.events("image.layers")} <= {True}


def test_who_has_an_image_is_listed_and_what_is_kept_of_it_removed(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    phalanx.run(
        "image", "sync", NAME, "--target", "slurm", "-w", "n[1-3]", "--image-archive", archive(place, 1)
    )
    every = ("--target", "slurm", "-N4")
    told = json.loads(phalanx.run("image", "ls", NAME, *every, "--json").stdout)
    assert [(image["nodes"], image["missing"]) for image in told["images"]] == [(["n1", "n2", "n3"], ["n4"])]
    assert {one["node"] for one in told["nodes"] if one["cached_layers"]} == {"n1", "n2", "n3"}
    shaped.lab.exec("n2", ["docker", "create", "--name", "user", NAME, "x"])
    shaped.repairs.append(lambda: shaped.lab.exec("n2", ["docker", "rm", "-f", "user"]))
    pruned = phalanx.start("image", "prune", NAME, *every)
    pruned.ends(9)
    assert "n2: cannot remove image sync:1" in pruned.stderr
    assert have(shaped) == {"n2"}
    lines = pruned.stdout.splitlines()
    assert any("n2" in line and "not on n[1,3-4]" in line for line in lines), pruned.stdout
    left = phalanx.run("image", "ls", *every)
    assert "0 B" in left.stdout.splitlines()[-1], "caches are not empty"


def test_a_changed_layer_is_all_that_travels(shaped: Cluster, phalanx: Phalanx, place: Path) -> None:
    phalanx.run(*SYNC, "--image-archive", archive(place, *range(7)))
    run = phalanx.run(*SYNC, "--image-archive", archive(place, *range(6), 99, name="b.tar"))
    (planned,) = run.events("image.planned")
    assert LAYER * 4 < planned["bytes"] < LAYER * 4 * 1.1
    assert planned["saved_bytes"] > 6 * LAYER * 4


FLIP = """
for blob in /var/tmp/phalanx-*/blobs/sha256/*; do
    printf X | dd of="$blob" bs=1 seek=2000000 conv=notrunc status=none
done
docker rmi -f sync:1
"""


def test_bits_that_flip_on_a_nodes_disk_are_found_where_they_arrive_and_the_next_sync_heals_the_node(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    path = archive(place, *range(3))
    phalanx.run("image", "sync", NAME, "--target", "slurm", "-w", "n2", "--image-archive", path)
    shaped.lab.exec("n2", ["sh", "-c", FLIP], check=True)
    run = phalanx.run(*SYNC, "--image-archive", path, code=9)
    assert have(shaped) == {"n1", "n3", "n4"}
    assert "n1 reads no more from n2 (damaged bytes)" in run.stderr
    assert "n2: cannot load image sync:1" in run.stderr
    assert "damaged layers in the cache" in run.stderr
    left = {event["parent"] for event in run.events("image.parent_failed") if event["corrupt"]}
    assert left == {"n2"}, "an honest node was blamed"
    phalanx.run(*SYNC, "--image-archive", path)
    assert have(shaped) == set(shaped.nodes)


def test_an_agent_killed_in_the_middle_holds_nobody_up_and_its_node_goes_on_where_it_was(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    path = archive(place, *range(7))
    run = phalanx.start(*SYNC, "--image-archive", path, *TIMES)
    under_way(run, shaped, 2 * LAYER)
    for pid in shaped.agents("n2"):
        os.kill(pid, signal.SIGKILL)
    run.ends(3)
    assert have(shaped) == {"n1", "n3", "n4"}
    assert "n2" in run.stderr.partition("First failure")[2].splitlines()[0]
    shaped.forget_dead_files()
    again = phalanx.run(*SYNC, "--image-archive", path)
    assert have(shaped) == set(shaped.nodes)
    assert [event["node"] for event in again.events("image.layers", present=False)] == ["n2"]
    read = transfer(again, phalanx)["read_bytes"]
    assert isinstance(read, int)
    assert read < 6 * LAYER, "it began anew"


def test_a_node_that_seeds_and_is_killed_is_followed_by_one_whose_engine_has_the_image(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    path = archive(place, *range(7))
    phalanx.run("image", "sync", NAME, "--target", "slurm", "-w", "n[1-2]", "--image-archive", path)
    run = phalanx.start(*SYNC, *TIMES)
    run.wait_event("image.planned")
    before = shaped.lab.traffic()["n1"][0]
    until(lambda: shaped.lab.traffic()["n1"][0] - before > 2 * LAYER, 20.0, "n1 gives its layers")
    for pid in shaped.agents("n1"):
        os.kill(pid, signal.SIGKILL)
    run.ends(3)
    assert have(shaped) == set(shaped.nodes)
    assert [event["node"] for event in run.events("image.source")] == ["n1", "n2"]
    assert "n1" in run.stderr.partition("First failure")[2].splitlines()[0]
    shaped.forget_dead_files()


def test_a_link_that_is_cut_for_a_while_delays_and_breaks_nothing(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run = phalanx.start(*SYNC, "--image-archive", archive(place, *range(7)))
    under_way(run, shaped, 2 * LAYER)
    shaped.lab.cut("n3")
    shaped.repairs.append(partial(shaped.lab.join, "n3"))
    until(lambda: have(shaped) >= {"n1", "n2", "n4"}, 30.0, "the others have it, from whomever")
    assert "n3" not in have(shaped)
    shaped.lab.join("n3")
    run.ends(0)
    assert have(shaped) == set(shaped.nodes)


@pytest.mark.parametrize("slow", ["n1", "n2"])
def test_a_slow_node_is_fed_last(shaped: Cluster, phalanx: Phalanx, place: Path, slow: str) -> None:
    shaped.lab.rate(slow, "8mbit")
    run = phalanx.start(*SYNC, "--image-archive", archive(place, *range(7)))
    run.wait_event("image.slow", nodes=[slow])
    others = set(shaped.nodes) - {slow}
    until(lambda: have(shaped) >= others, 30.0, "the others have it")
    assert slow not in have(shaped)
    shaped.lab.rate(slow, "max")
    run.ends(0)
    assert have(shaped) == set(shaped.nodes)


def test_layers_may_travel_unencrypted_when_that_is_said(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    path = archive(place, 1, 2)
    run = phalanx.run(*SYNC, "--image-archive", path, "--bulk-security", "integrity")
    assert have(shaped) == set(shaped.nodes)
    assert "unencrypted" in run.stderr


def test_a_dry_run_says_what_would_move_and_touches_nothing(phalanx: Phalanx, place: Path) -> None:
    path = archive(place, 1, 2)
    told = phalanx.ask(*SYNC, "--image-archive", path, "--dry-run")
    assert told.returncode == 0
    assert "nodes read from one another (chain)" in told.stdout
    assert "this machine sends 8.4 MB" in told.stdout
    assert not phalanx.runs.exists()


def test_ctrl_c_ends_a_sync_and_leaves_the_engines_clean(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run = phalanx.start(*SYNC, "--image-archive", archive(place, *range(7)), terminal=True)
    until(lambda: bool(parts(shaped, "n1")), 20.0, "a layer is in an engine")
    run.type(b"\x03")
    run.ends(130)
    for node in shaped.nodes:
        assert not parts(shaped, node)


def test_one_node_pulls_from_a_registry_for_all_with_what_the_login_node_has_for_it(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    with registry(cluster.lab.topology.login_address, place) as where:
        name = f"{where}/phx/behind:1"
        script = (
            f"docker login -u {USER} --password-stdin {where} && docker tag {BASE} {name} && "
            f"docker push {name}; docker rmi {name}; docker logout {where}"
        )
        pushed = cluster.lab.exec("n4", ["sh", "-c", script], stdin=PASSWORD)
        assert "digest: sha256:" in pushed.stdout, pushed.stderr
        wanted = cluster.lab.image_layers("n4", BASE)
        sync = ("image", "sync", name, "--target", "slurm", "-w", "n[1-3]")
        refused = phalanx.run(*sync, code=9)
        assert "docker login" in refused.stderr
        config = {"auths": {where: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
        (place / "config.json").write_text(json.dumps(config))
        run = phalanx.run(*sync, env={"DOCKER_CONFIG": str(place)})
    assert [cluster.lab.image_layers(node, name) for node in ("n1", "n2", "n3")] == [wanted] * 3
    assert run.events("image.source")[0]["where"] == "a registry, pulled by node n1"
    told = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in told
    for node in cluster.nodes:
        cluster.lab.exec(node, ["docker", "rmi", name])


def kept(phalanx: Phalanx, *given: str) -> Run:
    """A run that has done its work and keeps its nodes."""
    run = phalanx.start("run", "--target", "slurm", "-N4", "--keep", *given, "--", "true")
    run.wait_event("case.finished", within=60)
    return run


def brought(phalanx: Phalanx, path: Path, *given: str) -> dict[str, object]:
    """What is told of an image that was brought to the nodes of the latest run."""
    told = phalanx.ask(
        "image", "sync", NAME, "--run", "@latest", "--image-archive", str(path), *given, "--json"
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert isinstance(found, dict)
    return found


def test_the_nodes_of_a_live_run_get_one_more_image_and_only_what_they_lack_of_it(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run = kept(phalanx)
    size = 5 * LAYER
    before = sent_by_login(shaped)
    first = brought(phalanx, archive(place, *range(5)), "-x", "n4")
    assert have(shaped) == {"n1", "n2", "n3"}
    assert (first["nodes"], first["request"]) == (3, 2)
    assert sent_by_login(shaped) - before < 1.15 * size + 3_000_000, "the source sent it more than once"
    before = sent_by_login(shaped)
    again = brought(phalanx, archive(place, *range(5)), "-w", "n[1-3]")
    assert again["image_id"] == first["image_id"]
    assert sent_by_login(shaped) - before < 100_000
    changed = brought(phalanx, archive(place, 0, 1, 2, 3, 9, name="b.tar"), "-w", "n[1-3]")
    assert changed["read_bytes"] <= 3 * 1.1 * LAYER
    last = brought(phalanx, archive(place, 0, 1, 2, 3, 9, name="b.tar"))
    assert last["nodes"] == 4
    assert last["read_bytes"] <= 1.1 * size
    assert have(shaped) == set(shaped.nodes)
    assert phalanx.ask("cancel").returncode == 0
    run.ends(130)
    assert run.verdict["state"] == "cancelled"


def test_an_image_for_a_live_run_is_called_off_by_ctrl_c_and_can_be_asked_for_again(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run = kept(phalanx)
    path = archive(place, *range(14))  # five seconds more for a second command and a signal
    before = sent_by_login(shaped)
    asked = phalanx.start("image", "sync", NAME, "--run", run.id, "--image-archive", path)
    until(lambda: sent_by_login(shaped) - before > 2 * LAYER, 20.0, "two layers are on their way")
    second = phalanx.ask("image", "sync", "other:1", "--run", run.id)
    assert second.returncode == 1
    assert f"{NAME} is on its way" in second.stderr
    asked.process.send_signal(signal.SIGINT)
    assert asked.wait() == 130
    assert "called off" in asked.stderr
    run.wait_event("image.failed", request=2, exit_code=130)
    told = brought(phalanx, path)  # at once: what the first has left is being removed
    assert told["nodes"] == 4
    assert have(shaped) == set(shaped.nodes)
    assert phalanx.ask("cancel").returncode == 0
    run.ends(130)


def test_an_image_that_a_live_run_cannot_get_is_no_failure_of_the_run(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run = kept(phalanx)
    cluster.stop_engine("n2")
    told = phalanx.ask("image", "sync", NAME, "--run", run.id, "--image-archive", str(archive(place, 1)))
    assert told.returncode == 125
    assert "n2" in told.stderr
    refused = phalanx.ask("image", "sync", NAME, "--run", run.id, "-N", "2")
    assert refused.returncode == 4
    assert "--nodes with --run" in refused.stderr
    assert phalanx.ask("exec", "--host", "--", "true").returncode == 0
    assert json.loads(phalanx.ask("status", "--json").stdout)["first_failure"] is None
    cluster.lab.start_service("n2", "docker")
    cluster.repairs.clear()
    assert phalanx.ask("cancel").returncode == 0
    run.ends(130)


def two_models(phalanx: Phalanx, place: Path, first: str, *given: str) -> tuple[Run, Path]:
    """A run of two models: one does this in the base image, that of the other has seven layers of noise."""
    builds = place / "builds"
    builds.mkdir()
    archive(builds, *range(7), name="sync_1.tar")
    project = make_project(place, a=(BASE, first), b=(NAME, "echo nothing can run in there"))
    words = ("run", "--target", "slurm", "-N4", "--tags", "a,b", *given)
    environ = {"MAD_DOCKER_BUILDS": str(builds)}
    return phalanx.start(*words, folder=project, env=environ, terminal=True), project


def test_ctrl_c_while_the_image_of_the_next_model_comes_ends_the_run_and_leaves_the_engines_clean(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run, project = two_models(phalanx, place, 'echo "performance: 1 x"')
    run.wait_event("image.requested", case="b", within=60)
    before = shaped.lab.traffic()["n1"][1]

    def begun() -> bool:
        """Loads wait for bytes where CPUs are short: then it is called off among those."""
        return bool(parts(shaped, "n1")) or shaped.lab.traffic()["n1"][1] - before > 3 * LAYER

    until(begun, 20.0, "a layer is in an engine, or on its way to it")
    run.type(b"\x03")
    run.ends(130)
    assert {name: row["status"] for name, row in rows_of(project).items()} == {
        "a": "SUCCESS",
        "b": "CANCELLED",
    }
    for node in shaped.nodes:
        assert not parts(shaped, node)


def test_an_agent_that_is_killed_while_the_image_of_the_next_model_comes_is_named_in_its_row(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run, project = two_models(phalanx, place, 'echo "performance: 1 x"', *TIMES)
    run.wait_event("image.planned", within=60, request=2)
    for pid in shaped.agents("n2"):
        os.kill(pid, signal.SIGKILL)
    run.ends(3)
    assert {name: row["status"] for name, row in rows_of(project).items()} == {
        "a": "SUCCESS",
        "b": "FAILURE",
    }
    (verdict,) = run.events("case.finished", case="b")
    assert "n2" in verdict["reason"]
    assert "lost" in verdict["reason"]
    assert have(shaped) == {"n1", "n3", "n4"}
    shaped.forget_dead_files()


def test_the_image_of_the_next_model_waits_for_the_end_of_what_a_person_wants(
    shaped: Cluster, phalanx: Phalanx, place: Path
) -> None:
    run, project = two_models(phalanx, place, 'sleep 5; echo "performance: 1 x"')
    run.wait_event("step.started", within=60, count=4)
    other = archive(place, *range(20, 45))
    asked = phalanx.start("image", "sync", NAME, "--run", run.id, "--image-archive", other)
    run.wait_event("image.requested", case="b", within=60)
    assert not run.events("image.ready", request=2)
    assert asked.wait() == 0
    run.wait_event("image.ready", within=60, request=3)
    run.ends(3)  # nothing can run in it
    (theirs,), (ours,) = run.events("image.ready", request=2), run.events("image.ready", request=3)
    assert theirs["image_id"] == ours["image_id"], "every node had it by then under that name"
    assert rows_of(project)["b"]["docker_sha"] == ours["image_id"]
