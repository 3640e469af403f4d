"""phalanx build on real engines: what is built, how it is called, what is written, and what never is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.builds.making import AMD, NVIDIA, card, project
from tests.lab.docker import engine_socket
from tests.lab.image import NAME as BASE
from tests.stories.cluster import Cluster, command_line, until
from tests.stories.program import Phalanx
from tests.stories.registry import PASSWORD, USER, registry

pytestmark = pytest.mark.lab
CANARY = "canary-4b1d7e"
FROM = f"ARG BASE_DOCKER={BASE}\nFROM $BASE_DOCKER\n"
#: Without the folder where a client without BuildKit may stand before Debian's.
DEBIANS = "/usr/sbin:/usr/bin:/sbin:/bin"
OTHER_CLIENT = "/usr/local/bin/docker"


@pytest.fixture
def engine(cluster: Cluster, phalanx: Phalanx) -> Iterator[Phalanx]:
    """The program on a login node that has an engine: that of n1. What it made there goes."""
    phalanx.environ = {
        **phalanx.environ,
        "DOCKER_HOST": f"unix://{engine_socket(cluster.lab.topology, 'n1')}",
        "PATH": DEBIANS,
    }
    cluster.repairs.append(partial(forget_builds, cluster))
    yield phalanx
    forget_builds(cluster)


def forget_builds(cluster: Cluster, node: str = "n1") -> None:
    """Images, cached layers and whatever a build that was called off has left on the engine of a node."""
    script = (
        "docker images -q --filter reference='ci-*' --filter reference='*/ci-*' | xargs -r docker rmi -f; "
        "docker builder prune -f; docker image prune -f"
    )
    cluster.lab.exec(node, ["sh", "-c", script])


def manifest(folder: Path) -> Any:
    return json.loads((folder / "build_manifest.json").read_text())


def on_n1(cluster: Cluster, *words: str) -> str:
    return cluster.lab.exec("n1", ["docker", *words], check=True).stdout


def said_in(cluster: Cluster, image: str) -> str:
    """What the image has in its file /said."""
    return on_n1(cluster, "run", "--rm", "--network=none", image, "cat", "/said")


def test_every_dockerfile_that_fits_becomes_an_image_and_the_manifest_says_which(
    cluster: Cluster, engine: Phalanx, place: Path
) -> None:
    cluster.lab.exec("n1", ["docker", "tag", BASE, "other-base:1"], check=True)
    text = FROM + "ARG MAD_SYSTEM_GPU_ARCHITECTURE\nARG WORDS\n"
    text += 'RUN echo "$MAD_SYSTEM_GPU_ARCHITECTURE $WORDS" > /said\n'
    folder = project(
        place / "project",
        [card(), card("S/Two", args="--a 1")],
        {
            "docker/dummy.ubuntu.amd.Dockerfile": AMD + text,
            "docker/dummy.two.Dockerfile": "# CONTEXT {'ctx_test': '2'}\n" + text,
            "docker/dummy.ubuntu.nvidia.Dockerfile": NVIDIA + text,
            "ctx_test": "2",
        },
    )
    words = "$(touch /tmp/evil) `x` 'quoted' \"twice\" ; rm -rf / & ä"
    context = {"docker_build_arg": {"BASE_DOCKER": "other-base:1", "WORDS": words}}
    given = ("--tags", "all", "--target-archs", "gfx90a,gfx942", "--additional-context", json.dumps(context))
    run = engine.run("build", *given, "--summary-output", "summary.json", folder=folder)
    names = [
        f"ci-{model}_dummy.{stem}_{arch}"
        for model in ("dummy", "s_two")
        for stem in ("two", "ubuntu.amd")
        for arch in ("gfx90a", "gfx942")
    ]
    found = manifest(folder)
    assert sorted(found["built_images"]) == sorted(found["built_models"]) == sorted(names)
    for name in names:
        image = found["built_images"][name]
        assert cluster.lab.image_id("n1", name) == image["image_id"], run.stderr
        assert image["base_docker"] == "other-base:1"
        assert image["docker_sha"] == cluster.lab.image_id("n1", "other-base:1")
        assert (folder / image["log_file"]).read_text().startswith("$ docker build --network=host ")
        assert said_in(cluster, name) == f"{image['gpu_architecture']} {words}\n"
    assert len({one["image_id"] for one in found["built_images"].values()}) == 2
    assert len(json.loads((folder / "summary.json").read_text())["successful_builds"]) == len(names)
    on_n1(cluster, "rmi", "other-base:1")


@pytest.mark.parametrize("buildkit", [True, False])
def test_a_folder_of_tools_is_a_build_context_with_either_builder(
    cluster: Cluster, engine: Phalanx, place: Path, buildkit: bool
) -> None:
    text = FROM + "COPY --from=tools /said /said\nRUN --mount=type=secret,id=MAD_SECRETS_X cat /said\n"
    files = {
        "docker/dummy.Dockerfile": AMD + (text if buildkit else text.partition("RUN")[0]),
        "docker/common/said": "from the tools",
    }
    folder = project(place / "project", [card()], files)
    env = {"MAD_SECRETS_X": CANARY, "DOCKER_BUILDKIT": "" if buildkit else "0"}
    engine.run("build", "--tags", "all", folder=folder, env=env)
    assert said_in(cluster, "ci-dummy_dummy") == "from the tools"
    assert "phalanx-tools" not in on_n1(cluster, "images")
    if not buildkit:
        project(folder, [card()], {"docker/dummy.Dockerfile": AMD + text})
        run = engine.run("build", "--tags", "all", folder=folder, env=env, code=2)
        assert "mounts the secret MAD_SECRETS_X, which takes BuildKit" in run.stderr


def test_a_batch_builds_what_is_new_and_records_the_others(
    cluster: Cluster, engine: Phalanx, place: Path
) -> None:
    files = {"docker/dummy.ubuntu.amd.Dockerfile": AMD + FROM + "RUN echo new > /said\n"}
    folder = project(place / "project", [card("new"), card("kept"), card("given")], files)
    batch = [
        {"model_name": "new", "build_new": True},
        {"model_name": "kept"},
        {"model_name": "given", "registry_image": "registry.invalid/given:1"},
    ]
    (folder / "batch.json").write_text(json.dumps(batch))
    refused = engine.run("build", "--batch-manifest", "batch.json", "--tags", "new", folder=folder, code=4)
    assert "the batch says which models" in refused.stderr
    engine.run("build", "--batch-manifest", "batch.json", folder=folder)
    found = manifest(folder)["built_images"]
    assert (
        cluster.lab.image_id("n1", "ci-new_dummy.ubuntu.amd") == found["ci-new_dummy.ubuntu.amd"]["image_id"]
    )
    assert said_in(cluster, "ci-new_dummy.ubuntu.amd") == "new\n"
    kept, given = found["ci-kept_dummy.ubuntu.amd"], found["ci-given_dummy.ubuntu.amd"]
    assert (kept["registry_image"], kept["registry"]) == ("dockerhub/ci-kept_dummy.ubuntu.amd", "dockerhub")
    assert given["registry_image"] == "registry.invalid/given:1"
    assert not cluster.lab.image_id("n1", "ci-kept_dummy.ubuntu.amd"), "it is recorded, not built"


def test_a_build_that_fails_is_told_with_its_log_and_the_others_are_built(
    cluster: Cluster, engine: Phalanx, place: Path
) -> None:
    files = {
        "docker/dummy.Dockerfile": AMD + FROM,
        "docker/bad.Dockerfile": AMD + FROM + "RUN echo so it began; no-such-program --now\n",
        "docker/nv.Dockerfile": NVIDIA + FROM,
    }
    cards = [card(), card("bad", dockerfile="docker/bad"), card("nv", dockerfile="docker/nv")]
    folder = project(place / "project", cards, files)
    run = engine.run("build", "--tags", "all", folder=folder, code=2)
    found = manifest(folder)
    assert list(found["built_images"]) == ["ci-dummy_dummy"]
    failed = {one["model"]: one["error"] for one in found["summary"]["failed_builds"]}
    assert "exit code: 127" in failed["bad"] or "returned a non-zero code: 127" in failed["bad"]
    assert "is for gpu_vendor 'NVIDIA', not 'AMD'" in failed["nv"]
    assert "no-such-program: not found" in (folder / "bad_bad.build.live.log").read_text()
    assert "1 image ready, 2 failed" in run.stderr.splitlines()[-1]
    engine.run("build", "--tags", "nv", folder=folder, code=2)
    assert manifest(folder)["built_images"] == {}, "the manifest is always written"


def test_images_go_to_a_registry_with_a_password_that_is_left_nowhere(
    cluster: Cluster, engine: Phalanx, place: Path
) -> None:
    files = {"docker/dummy.Dockerfile": AMD + FROM + "RUN echo pushed > /said\n"}
    folder = project(place / "project", [card()], files)
    home = place / "home"
    (home / ".docker").mkdir(parents=True)
    config = home / ".docker" / "config.json"
    config.write_text('{"auths": {"elsewhere": {"auth": "a2VwdDprZXB0"}}}')
    env = {"HOME": str(home)}
    with registry(cluster.lab.topology.login_address, place) as where:
        given = ("build", "--tags", "all", "--registry", where)
        run = engine.run(*given, folder=folder, env=env, code=2)
        assert "no basic auth credentials" in run.stderr or "authentication required" in run.stderr
        found = manifest(folder)
        assert found["built_images"]["ci-dummy_dummy"]["push_error"]
        assert "registry_image" not in found["built_images"]["ci-dummy_dummy"]
        book = {where: {"username": USER, "password": "not it"}}
        (folder / "credential.json").write_text(json.dumps(book))
        (folder / "build_manifest.json").unlink()
        run = engine.run(*given, folder=folder, env=env, code=2)
        assert f"cannot log in to {where} as {USER} (credential.json)" in run.stderr
        assert "not it" not in run.everything
        assert not (folder / "build_manifest.json").exists(), "refused before anything was built"
        book[where]["password"] = PASSWORD
        (folder / "credential.json").write_text(json.dumps(book))
        run = engine.run(*given, folder=folder, env=env)
        name = f"{where}/ci-dummy_dummy"
        found = manifest(folder)
        assert found["built_images"]["ci-dummy_dummy"]["registry_image"] == name
        assert found["built_models"]["ci-dummy_dummy"]["env_vars"] == {"DOCKER_IMAGE_NAME": name}
        assert found["summary"]["successful_pushes"] == [name]
        script = (
            f"docker login -u {USER} --password-stdin {where} && docker pull {name} && "
            f"docker run --rm --network=none {name} cat /said; docker rmi {name}; docker logout {where}"
        )
        pulled = cluster.lab.exec("n4", ["sh", "-c", script], stdin=PASSWORD)
        assert "pushed\n" in pulled.stdout, pulled.stderr
    assert config.read_text() == '{"auths": {"elsewhere": {"auth": "a2VwdDprZXB0"}}}'
    written = b"".join(path.read_bytes() for path in folder.rglob("*.log"))
    written += (folder / "build_manifest.json").read_bytes()
    assert PASSWORD.encode() not in written


def test_a_secret_is_in_no_log_manifest_history_layer_or_argument(
    cluster: Cluster, engine: Phalanx, place: Path
) -> None:
    mounting = "RUN --mount=type=secret,id=MAD_SECRETS_X "
    mounting += "wc -c /run/secrets/MAD_SECRETS_X > /said; cat /run/secrets/MAD_SECRETS_X; sleep 2\n"
    files = {
        "docker/mount.Dockerfile": AMD + FROM + mounting,
        "docker/plain.Dockerfile": AMD + FROM + "RUN env > /said; sleep 2\n",
    }
    cards = [
        card(name, dockerfile=f"docker/{name}", env_vars={"CARD_TOKEN": CANARY})
        for name in ("mount", "plain")
    ]
    folder = project(place / "project", cards, files)
    context = {"docker_env_vars": {"HF_TOKEN": CANARY}, "docker_build_arg": {"API_KEY": CANARY}}
    (place / "context.json").write_text(json.dumps(context))
    run = engine.start(
        "build", "--tags", "all", "--live-output", "--additional-context-file", str(place / "context.json"),
        folder=folder, env={"MAD_SECRETS_X": CANARY},
    )  # fmt: skip
    seen: set[str] = set()
    while run.process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "docker" in line and "build" in line:
                seen.add(line)
    run.ends(0)
    assert any("--secret id=MAD_SECRETS_X" in line for line in seen)
    assert not any(CANARY in line for line in seen)
    assert said_in(cluster, "ci-mount_mount").startswith(f"{len(CANARY)} ")
    assert "MAD_SECRETS" not in said_in(cluster, "ci-plain_plain")
    for image in ("ci-mount_mount", "ci-plain_plain"):
        assert CANARY not in on_n1(cluster, "history", "--no-trunc", image) + on_n1(cluster, "inspect", image)
    assert CANARY not in run.everything
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "models.json":
            assert CANARY not in path.read_text(), path
    assert manifest(folder)["secrets_required"] == ["HF_TOKEN"]
    assert manifest(folder)["built_models"]["ci-plain_plain"]["secrets_required"] == ["CARD_TOKEN"]


@pytest.mark.parametrize("buildkit", ["1", "0"])
def test_ctrl_c_ends_every_build_and_the_step_that_it_was_at(
    cluster: Cluster, engine: Phalanx, place: Path, buildkit: str
) -> None:
    files = {"docker/dummy.Dockerfile": AMD + FROM + "RUN echo begun; sleep 314\n"}
    folder = project(place / "project", [card()], files)
    env = {"DOCKER_BUILDKIT": buildkit}
    run = engine.start("build", "--tags", "all", "--live-output", folder=folder, env=env)
    run.wait_output("begun")
    run.process.send_signal(2)
    run.ends(130, within=15)
    assert not (folder / "build_manifest.json").exists()
    until(lambda: not steps_on(cluster, "n1"), 10.0, "the step has ended")


def steps_on(cluster: Cluster, node: str) -> list[int]:
    return [pid for pid in cluster.processes(node) if "sleep 314" in " ".join(command_line(pid))]


def test_no_engine_is_said_before_anything_is_written(engine: Phalanx, place: Path) -> None:
    folder = project(place / "project", [card()], {"docker/dummy.Dockerfile": AMD + FROM})
    run = engine.run(
        "build", "--tags", "all", folder=folder, code=2, env={"DOCKER_HOST": "unix:///nowhere.sock"}
    )
    assert "cannot build: no container engine answers" in run.stderr
    assert "--build-on-compute" in run.stderr
    run = engine.run("build", "--tags", "all", folder=folder, code=2, env={"PATH": str(place)})
    assert "there is no program 'docker'" in run.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["docker", "models.json", "run.sh"]


def test_a_compute_node_builds_and_the_others_get_the_image_from_it(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    mounting = "RUN --mount=type=secret,id=MAD_SECRETS_X wc -c < /run/secrets/MAD_SECRETS_X > /secret\n"
    files = {
        "docker/dummy.Dockerfile": AMD + FROM + "COPY --from=tools /said /said\nARG WORDS\n" + mounting,
        "docker/bad.Dockerfile": AMD + FROM + "RUN echo so it began; no-such-program\n",
        "docker/common/said": "from the tools\n",
        "run.sh": 'cat /said; echo "performance: 12.5 tok/s"\n',
    }
    folder = project(place / "project", [card(), card("two"), card("bad", dockerfile="docker/bad")], files)
    if Path(OTHER_CLIENT).exists():
        cluster.hide("n2", OTHER_CLIENT)
    node = ("--target", "slurm", "-w", "n2")
    context = ("-c", json.dumps({"docker_build_arg": {"WORDS": "a 'b' $(c)"}}))
    env = {"MAD_SECRETS_X": CANARY}
    shown = phalanx.run("build", "--tags", "all", "--build-on-compute", *node, "--dry-run", folder=folder)
    assert "salloc" in shown.stdout
    run = phalanx.run(
        "build", "--tags", "all", "--build-on-compute", *node, *context, folder=folder, env=env, code=2
    )
    found = manifest(folder)
    assert list(found["built_images"]) == ["ci-dummy_dummy", "ci-two_dummy"]
    image = found["built_images"]["ci-dummy_dummy"]
    assert (image["built_on_compute"], image["built_on"]) == (True, "n2")
    assert (
        image["image_id"]
        == cluster.lab.image_id("n2", "ci-dummy_dummy")
        == cluster.lab.image_id("n2", "ci-two_dummy")
    )
    assert (
        cluster.lab.exec("n2", ["docker", "run", "--rm", "ci-dummy_dummy", "cat", "/secret"]).stdout
        == f"{len(CANARY)}\n"
    )
    assert "phalanx-tools" not in cluster.lab.exec("n2", ["docker", "images"]).stdout
    (failed,) = found["summary"]["failed_builds"]
    assert failed["model"] == "bad" and "step build: exit status" in failed["error"]
    assert "no-such-program: not found" in (folder / "bad_bad.build.live.log").read_text()
    assert "COPY --from=tools" in (folder / "two_dummy.build.live.log").read_text()
    written = b"".join(
        path.read_bytes() for path in [*folder.rglob("*"), *run.folder.rglob("*")] if path.is_file()
    )
    assert CANARY.encode() not in written
    ran = phalanx.run(
        "run",
        "-m",
        "build_manifest.json",
        "--tags",
        "dummy",
        "--target",
        "slurm",
        "-w",
        "n[1-3]",
        "-N3",
        folder=folder,
    )
    assert ran.stdout.count("from the tools") == 3
    assert {cluster.lab.image_id(name, "ci-dummy_dummy") for name in ("n1", "n2", "n3")} == {
        image["image_id"]
    }
    rows = (folder / "perf.csv").read_text().splitlines()
    assert len(rows) == 2 and ",docker/dummy.Dockerfile," in rows[1] and ",12.5,tok/s," in rows[1]
    for name in ("n1", "n2", "n3"):
        forget_builds(cluster, name)


def test_a_compute_node_pushes_with_a_password_that_is_left_nowhere(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    folder = project(place / "project", [card(), card("two")], {"docker/dummy.Dockerfile": AMD + FROM})
    with registry(cluster.lab.topology.login_address, place) as where:
        (folder / "credential.json").write_text(json.dumps({where: {"username": USER, "password": PASSWORD}}))
        given = ("--build-on-compute", "--target", "slurm", "-w", "n3", "--registry", where)
        run = phalanx.run("build", "--tags", "all", *given, folder=folder)
        assert manifest(folder)["summary"]["successful_pushes"] == [
            f"{where}/ci-dummy_dummy",
            f"{where}/ci-two_dummy",
        ]
    written = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in written
    assert PASSWORD not in cluster.lab.exec("n3", ["sh", "-c", "cat /root/.docker/config.json"]).stdout
    forget_builds(cluster, "n3")
