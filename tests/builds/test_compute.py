"""A build as a run of one node: its cases, and what their events say of the images."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.builds.compute import (
    _BUILD,
    compute_plan,
    ids_kept,
    outcomes,
    secrets_of,
    step_order,
)
from phalanx.controller.builds.credentials import Login
from phalanx.controller.builds.make import make_build_plan
from phalanx.controller.builds.model import BuildPlan, ImageBuild
from phalanx.controller.builds.staging import stage
from phalanx.controller.fleet.events import CaseFinished, Event, FileCollected, RankExited, Recorded
from phalanx.controller.fleet.workspace import pack
from phalanx.controller.plan.codec import from_json, to_json
from phalanx.controller.plan.inputs import RunInputs
from phalanx.controller.plan.model import Plan, Share
from phalanx.controller.plan.secrets import Secrets
from phalanx.controller.workflow.context import load_context

from tests.builds.making import AMD, card, inputs, project

ID = "sha256:" + "a" * 64
CANARY = "canary-99aa"
DOCKERFILES = {
    "docker/dummy.Dockerfile": AMD + "FROM base:1\nARG MAD_SECRETS_X\n",
    "docker/tools.Dockerfile": AMD + "FROM base:1\nCOPY --from=tools / /\n",
    "docker/common/x": "1",
    "docker/more/y": "2",
}


def planned(
    folder: Path, login: Login | None = None, **more: Any
) -> tuple[BuildPlan, Plan, dict[str, ImageBuild], Secrets]:
    cards = [card(), card("two"), card("tools", dockerfile="docker/tools")]
    made = inputs(project(folder, cards, DOCKERFILES), environ={"MAD_SECRETS_X": CANARY}, **more)
    build, secrets = make_build_plan(made)
    context = load_context(json.dumps({"docker_build_arg": {"API_KEY": CANARY + "-2"}}))
    said = ("phalanx", "build", "-c", json.dumps(context.document), f"--x={CANARY}")
    given = RunInputs(
        run_id="20260101-000000-Build-0000",
        cwd="/",
        argv=said,
        context=context,
        name="build",
        nodes=1,
        target="slurm",
    )
    plan, first = compute_plan(given, build, secrets, login, "/staged")
    return build, plan, first, secrets


def test_each_recipe_is_a_case_and_no_secret_is_in_the_plan(tmp_path: Path) -> None:
    login = Login("me", CANARY, "credential.json")
    build, plan, first, secrets = planned(tmp_path, login, registry="r:5000")
    assert [case.name for case in plan.cases] == ["ci-dummy_dummy", "ci-tools_tools"]
    assert {name: image.image for name, image in first.items()} == {name: name for name in first}
    one, two = plan.cases
    assert [step.name for step in one.steps] == ["login", "build", "tag-1", "push-1", "tag-2", "push-2"]
    assert [step.name for step in two.steps] == ["login", "tools", "build", "tag", "push", "clean"]
    assert {step.per for case in plan.cases for step in case.steps} == {"node"}
    assert [step.always for step in two.steps] == [False] * 5 + [True]
    assert (one.workspace, one.collect) == ((Share("/staged"),), ("image.iid",))
    assert plan.output_csv == ""
    document = to_json(plan)
    assert CANARY.encode() not in document
    assert from_json(document) == plan
    assert secrets_of(secrets, login) == {"MAD_SECRETS_X": CANARY, "REGISTRY_PASSWORD": CANARY}
    assert one.env["MAD_SECRETS_X"].secret and one.env["REGISTRY_PASSWORD"].secret
    assert build.jobs()[0][0] is first["ci-dummy_dummy"]


def test_what_is_sent_is_what_the_builds_need(tmp_path: Path) -> None:
    build, *_ = planned(tmp_path / "project")
    (tmp_path / "staged").mkdir()
    stage(build, tmp_path / "staged", "phalanx-tools:1")
    files = {
        str(path.relative_to(tmp_path / "staged"))
        for path in (tmp_path / "staged").rglob("*")
        if path.is_file()
    }
    assert files == {*DOCKERFILES, "phalanx-tools.Dockerfile"}
    text = (tmp_path / "staged/docker/tools.Dockerfile").read_text()
    assert text == AMD + "FROM phalanx-tools:1 AS tools\nFROM base:1\nCOPY --from=tools / /\n"
    assert (tmp_path / "project/docker/tools.Dockerfile").read_text() == DOCKERFILES[
        "docker/tools.Dockerfile"
    ]


def test_links_out_of_the_project_and_credentials_are_not_sent(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    build, *_ = planned(folder)
    (tmp_path / "key").write_text(CANARY)
    (folder / "docker/out").symlink_to(tmp_path / "key")
    (folder / "docker/away").symlink_to(tmp_path)
    (folder / "docker/gone").symlink_to("nowhere")
    (folder / "docker/ring").symlink_to("ring")
    (folder / "docker/within").symlink_to("more/y")
    (folder / "docker/credential.json").write_text(CANARY)
    stage(build, tmp_path / "staged", "phalanx-tools:1")
    names = {path.name for path in (tmp_path / "staged/docker").iterdir()}
    assert names == {"common", "more", "dummy.Dockerfile", "tools.Dockerfile", "within"}
    pack((Share(str(tmp_path / "staged")),), tmp_path / "sent.tar")
    assert CANARY.encode() not in (tmp_path / "sent.tar").read_bytes()


def exited(case: str, step: str, status: int = 0, cause: str = "exited") -> RankExited:
    return RankExited(case, step, "n1", -1, status, cause, 2.5)


def records(*events: Event) -> list[Recorded]:
    return [Recorded(number, 0.0, event) for number, event in enumerate(events)]


def test_images_are_built_when_their_step_ended_well_and_an_id_came_back(tmp_path: Path) -> None:
    build, _, first, _ = planned(tmp_path)
    log = records(
        exited("ci-dummy_dummy", "build"),
        FileCollected("ci-dummy_dummy", "n1", "image.iid", 71, "d", "results/n1/image.iid"),
        exited("ci-tools_tools", "tools", 1),
        CaseFinished("ci-tools_tools", "FAILURE", "n1, step tools: exit status 1", ()),
    )
    assert ids_kept(log) == {"ci-dummy_dummy": "results/n1/image.iid"}
    made = outcomes(build, first, log, {"ci-dummy_dummy": ID})
    assert [(one.build.image, one.image_id, one.node, one.duration_s) for one in made[:2]] == [
        ("ci-dummy_dummy", ID, "n1", 2.5),
        ("ci-two_dummy", ID, "n1", 2.5),
    ]
    assert made[2].error == "n1, step tools: exit status 1; the whole log is tools_tools.build.live.log"
    assert outcomes(build, first, log, {})[0].error.startswith("the run ended before it")
    assert all(one.error for one in outcomes(build, first, [], {})), "a lost run is no success"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (exited("ci-dummy_dummy", "push-2", 1), "why"),
        (exited("ci-dummy_dummy", "push-2", 0, "lost"), "why"),
        (None, "why"),
    ],
)
def test_an_image_is_pushed_when_tag_and_push_ended_well(
    tmp_path: Path, event: RankExited | None, error: str
) -> None:
    build, _, first, _ = planned(tmp_path, registry="r:5000")
    steps = [exited("ci-dummy_dummy", step) for step in ("build", "tag-1", "push-1", "tag-2")]
    events = [*steps, *([event] if event else []), CaseFinished("ci-dummy_dummy", "FAILURE", "why", ())]
    one, two, _ = outcomes(build, first, records(*events), {"ci-dummy_dummy": ID})
    assert (one.push_error, two.push_error) == ("", error)


def test_steps_are_read_in_the_order_in_which_they_ran() -> None:
    steps = ["login", "tools", "build", "tag-1", "push-1", "tag-2", "push-2", "clean"]
    found = sorted({*steps}, key=step_order)
    assert (found[:3], found[-1]) == (steps[:3], "clean")


@pytest.mark.parametrize(
    ("known", "in_registry", "pulled"),
    [
        ("sha256:12 []", True, False),
        ("sha256:12 [base@sha256:34 other@sha256:56]", False, True),
        ("sha256:12 [base@sha256:12]", False, False),  # the containerd store: made or loaded here
        ("sha256:12 [base@sha256:12]", True, True),
        ("", False, True),
    ],
)
def test_a_base_that_is_only_on_the_node_is_not_pulled(
    tmp_path: Path, known: str, in_registry: bool, pulled: bool
) -> None:
    client = tmp_path / "docker"
    client.write_text(
        '#!/bin/sh\nif [ "$1" = image ]; then [ -n "$KNOWN" ] || exit 1; echo "$KNOWN"\n'
        f'elif [ "$1" = manifest ]; then echo "{{}}"; exit {int(not in_registry)}\n'
        'else printf "<%s>" "$@"; fi\n'
    )
    client.chmod(0o755)
    evil = "X=$(touch x) 'y' \"z\"\n-- "
    argv = ("sh", "-c", _BUILD, "sh", "base:1", "--", "docker", "build", "--build-arg", evil, "./docker")
    done = subprocess.run(
        argv,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "KNOWN": known},
        capture_output=True,
        text=True,
        check=True,
    )
    pull = "<--pull>" if pulled else ""
    said, build, words = done.stdout.partition("<build>")
    assert build + words == f"<build>{pull}<--build-arg><{evil}><./docker>"
    assert ("its registry" in said) is (known.endswith("[base@sha256:12]") and not in_registry)
