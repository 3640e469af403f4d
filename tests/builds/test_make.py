"""From a project and its context to a plan of builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.builds.inputs import BatchEntry, read_batch
from phalanx.controller.builds.make import make_build_plan
from phalanx.controller.builds.model import BuildArg
from phalanx.controller.builds.words import plan_document, plan_lines
from phalanx.controller.workflow.errors import DiscoveryError, InputError

from tests.builds.making import AMD, NVIDIA, card, inputs, project

BASE = "ARG BASE_DOCKER=rocm/pytorch\nFROM $BASE_DOCKER\n"
EVIL = ["a b", "a'b", 'a"b', "$(touch x)", "`x`", "a\nb", "-x", "ä", "a;b", "a\0b", "..", "a//b", "x" * 300]


def test_every_dockerfile_that_fits_is_an_image(tmp_path: Path) -> None:
    project(
        tmp_path,
        [card(), card("Scoped/Two")],
        {
            "docker/dummy.ubuntu.amd.Dockerfile": AMD + BASE,
            "docker/dummy.two.Dockerfile": "# CONTEXT {'ctx_test': '2'}\n" + BASE,
            "docker/dummy.ubuntu.nvidia.Dockerfile": NVIDIA + BASE,
            "ctx_test": "2\n",
        },
    )
    plan, _ = make_build_plan(inputs(tmp_path))
    assert [build.image for build in plan.builds] == [
        "ci-dummy_dummy.two",
        "ci-dummy_dummy.ubuntu.amd",
        "ci-scoped_two_dummy.two",
        "ci-scoped_two_dummy.ubuntu.amd",
    ]
    assert [build.log for build in plan.builds][2] == "Scoped_Two_dummy.two.build.live.log"
    assert {build.base for build in plan.builds} == {"rocm/pytorch"}
    assert {build.folder for build in plan.builds} == {"docker"}
    assert [len(job) for job in plan.jobs()] == [2, 2], "models of one recipe share a build"


def test_what_the_context_says_chooses(tmp_path: Path) -> None:
    files = {
        "docker/dummy.ubuntu.amd.Dockerfile": AMD + BASE,
        "docker/dummy.ubuntu.nvidia.Dockerfile": NVIDIA + BASE,
    }
    project(tmp_path, [card()], files)
    plan, _ = make_build_plan(inputs(tmp_path, context={"gpu_vendor": "nvidia", "guest_os": "UBUNTU"}))
    assert [build.image for build in plan.builds] == ["ci-dummy_dummy.ubuntu.nvidia"]
    assert plan.builds[0].gpu_vendor == "NVIDIA"


def test_a_model_that_no_dockerfile_fits_says_why_and_the_others_are_built(tmp_path: Path) -> None:
    files = {
        "docker/dummy.ubuntu.amd.Dockerfile": AMD + BASE,
        "docker/nv.ubuntu.nvidia.Dockerfile": NVIDIA + BASE,
        "docker/bare.Dockerfile": BASE,
    }
    cards = [card(), card("nv", dockerfile="docker/nv"), card("bare", dockerfile="docker/bare"),
             card("none", dockerfile="docker/none"), card("empty", dockerfile="")]  # fmt: skip
    plan, _ = make_build_plan(inputs(project(tmp_path, cards, files)))
    assert [build.model for build in plan.builds] == ["dummy"]
    why = {one.model: one.error for one in plan.unbuilt}
    assert "docker/nv.ubuntu.nvidia.Dockerfile is for gpu_vendor 'NVIDIA', not 'AMD'" in why["nv"]
    assert "docker/bare.Dockerfile has no '# CONTEXT {...}' line" in why["bare"]
    assert "there is no file docker/none.*" in why["none"]
    assert "it names no dockerfile" in why["empty"]
    assert all(
        words.startswith(f"cannot build models.json: [{n}]") for n, words in enumerate(why.values(), 1)
    )


def test_the_folder_of_a_build(tmp_path: Path) -> None:
    files = {f"docker/{name}.Dockerfile": AMD + BASE for name in ("dummy", "primus_x")}
    cards = [
        card(),
        card("p", dockerfile="docker/primus_x"),
        card("own", dockercontext="./scripts/../scripts"),
    ]
    plan, _ = make_build_plan(inputs(project(tmp_path, cards, files)))
    assert [build.folder for build in plan.builds] == ["docker", ".", "scripts"]
    bad = project(tmp_path / "b", [card(dockercontext="../..")], files)
    with pytest.raises(InputError, match=r"dockercontext '\.\./\.\.' leaves the project's folder"):
        make_build_plan(inputs(bad))


def test_build_arguments_with_their_origins(tmp_path: Path) -> None:
    text = AMD + BASE + "ARG MAD_SYSTEM_GPU_ARCHITECTURE\n"
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": text})
    context = {"docker_build_arg": {"BASE_DOCKER": "mine:2", "LEVEL": 3}}
    plan, _ = make_build_plan(inputs(folder, context=context, archs=("gfx90a", "gfx942")))
    first, second = plan.builds
    assert (first.image, second.image) == ("ci-dummy_dummy_gfx90a", "ci-dummy_dummy_gfx942")
    assert (first.log, second.log) == (
        "dummy_dummy_gfx90a.build.live.log",
        "dummy_dummy_gfx942.build.live.log",
    )
    assert first.args == (
        BuildArg("BASE_DOCKER", "mine:2", "--additional-context: docker_build_arg.BASE_DOCKER"),
        BuildArg("LEVEL", "3", "--additional-context: docker_build_arg.LEVEL"),
        BuildArg("MAD_SYSTEM_GPU_ARCHITECTURE", "gfx90a", "--target-archs"),
    )
    assert (first.base, first.bases) == ("mine:2", ("mine:2",))
    plan, _ = make_build_plan(inputs(folder))
    assert any("ARG MAD_SYSTEM_GPU_ARCHITECTURE has no default" in words for words in plan.warnings)
    said = {"docker_build_arg": {"MAD_SYSTEM_GPU_ARCHITECTURE": "gfx1"}}
    plan, _ = make_build_plan(inputs(folder, context=said, archs=("gfx90a",)))
    assert [build.image for build in plan.builds] == ["ci-dummy_dummy"]
    assert any("--target-archs is not used" in words for words in plan.warnings)


CANARY = "canary-7f3a9c"


def test_secrets_go_to_the_dockerfiles_that_ask_and_are_in_no_plan(tmp_path: Path) -> None:
    files = {
        "docker/plain.Dockerfile": AMD + "FROM a\n",
        "docker/arg.Dockerfile": AMD + "FROM a\nARG MAD_SECRETS_X\nARG db_PASSWORD\nARG API_KEY\n",
        "docker/mount.Dockerfile": AMD
        + "FROM a\nRUN --mount=type=secret,id=MAD_SECRETS_X cat /run/secrets/*\n",
        "credential.json": json.dumps({"db": {"username": "me", "password": CANARY}}),
    }
    more = {
        "cred": "db",
        "env_vars": {"A": "1", "CARD_TOKEN": CANARY},
        "additional_docker_run_options": f"-e 'OPTION_TOKEN={CANARY}' --ipc host",
    }
    cards = [card(name, dockerfile=f"docker/{name}", **more) for name in ("plain", "arg", "mount")]
    folder = project(tmp_path, cards, files)
    context = {
        "docker_build_arg": {"API_KEY": CANARY, "UNASKED_TOKEN": CANARY},
        "env_vars": {"HF_TOKEN": CANARY},
        "docker_env_vars": {"MAD_SECRETS_Y": CANARY, "OPEN": "1"},
    }
    made = inputs(folder, context=context, environ={"MAD_SECRETS_X": CANARY, "THE_MAD_SECRETS_TOO": CANARY})
    plan, secrets = make_build_plan(made)
    found = {build.model: ([arg.name for arg in build.args], build.mounts) for build in plan.builds}
    assert found == {
        "plain": ([], ()),
        "arg": (["API_KEY", "db_PASSWORD", "MAD_SECRETS_X"], ()),
        "mount": ([], ("MAD_SECRETS_X",)),
    }
    assert set(secrets) == {"API_KEY", "db_PASSWORD", "MAD_SECRETS_X"}
    shown = json.dumps(plan_document(plan)) + "\n".join(plan_lines(plan)) + repr(plan)
    assert CANARY not in shown + repr(made.credentials)
    assert plan.secrets_required == ("MAD_SECRETS_Y", "HF_TOKEN", "CARD_TOKEN", "OPTION_TOKEN")
    assert [build.card["env_vars"] for build in plan.builds] == [{"A": "1"}] * 3
    assert {build.card["additional_docker_run_options"] for build in plan.builds} == {
        "-e OPTION_TOKEN --ipc host"
    }
    assert plan.context["docker_env_vars"] == {"OPEN": "1"}
    assert any("ARG API_KEY: its value stays readable" in words for words in plan.warnings)


def test_credentials_that_are_not_there(tmp_path: Path) -> None:
    files = {
        "docker/dummy.Dockerfile": AMD + "FROM a\n",
        "docker/asks.Dockerfile": AMD + "FROM a\nARG db_TOKEN\n",
    }
    plan, _ = make_build_plan(inputs(project(tmp_path, [card(cred="db")], files)))
    assert plan.credentials_required == ("db",)
    assert any("has the credentials 'db'" in words for words in plan.warnings)
    asks = project(tmp_path, [card(cred="db", dockerfile="docker/asks")], files)
    with pytest.raises(InputError, match=r"cannot build models\.json: .*has the credentials 'db'"):
        make_build_plan(inputs(asks))


def test_a_placeholder_is_resolved_or_refused(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    said: dict[str, Any] = {"docker_build_arg": {"LEVEL": "${LEVEL_HERE}"}}
    plan, _ = make_build_plan(inputs(folder, context=said, environ={"LEVEL_HERE": "7"}))
    assert plan.builds[0].args[0].value == "7"
    with pytest.raises(InputError, match="LEVEL_HERE is not set here"):
        make_build_plan(inputs(folder, context=said))


def test_tools_are_needed_only_where_they_are_copied_from(tmp_path: Path) -> None:
    files = {"docker/dummy.Dockerfile": AMD + "FROM a\nCOPY --from=tools /x /x\n"}
    with pytest.raises(InputError, match="the project has no folder docker/common"):
        make_build_plan(inputs(project(tmp_path, [card()], files)))
    plan, _ = make_build_plan(inputs(project(tmp_path, [card()], {**files, "docker/common/x": "1"})))
    assert plan.builds[0].tools


def test_the_same_model_with_other_arguments_has_an_image_of_its_own_from_one_build(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    plan, _ = make_build_plan(inputs(folder, "dummy:a=1", "dummy:a=2", registry="r:5000"))
    assert [build.image for build in plan.builds] == ["ci-dummy_dummy", "ci-dummy_dummy_2"]
    assert [build.card["args"] for build in plan.builds] == [" --a 1", " --a 2"]
    assert [build.pushed for build in plan.builds] == ["r:5000/ci-dummy_dummy", "r:5000/ci-dummy_dummy_2"]
    assert len(plan.jobs()) == 1


@pytest.mark.parametrize(
    ("registry", "repository", "name"),
    [
        ("docker.io", "me/ci", "me/ci:ci-dummy_dummy"),
        ("dockerhub", "", "ci-dummy_dummy"),
        ("r.example:5000", "", "r.example:5000/ci-dummy_dummy"),
        ("r.example:5000", "team", "r.example:5000/team:ci-dummy_dummy"),
        (" r.example/sub/ ", "", "r.example/sub/ci-dummy_dummy"),
    ],
)
def test_what_an_image_is_called_in_a_registry(
    tmp_path: Path, registry: str, repository: str, name: str
) -> None:
    key = "dockerhub" if registry in ("docker.io", "dockerhub") else registry.strip()
    book = {key: {"username": "u", "password": "p", "repository": repository}}
    files = {"docker/dummy.Dockerfile": AMD + "FROM a\n", "credential.json": json.dumps(book)}
    plan, _ = make_build_plan(inputs(project(tmp_path, [card()], files), registry=registry))
    assert plan.builds[0].pushed == name


@pytest.mark.parametrize("registry", ["a b", "me@host", "-x", "r/UPPER", "r\nx", "$(x)"])
def test_what_is_no_registry(tmp_path: Path, registry: str) -> None:
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    with pytest.raises(InputError, match="cannot use --registry"):
        make_build_plan(inputs(folder, registry=registry))


def multi(name: str, image: str = "") -> dict[str, Any]:
    env = {"DOCKER_IMAGE_NAME": image} if image else {}
    return card(name, distributed={"launcher": "slurm-multi"}, env_vars=env)


def test_a_self_managed_model_brings_its_image_or_needs_a_registry(tmp_path: Path) -> None:
    files = {"docker/dummy.Dockerfile": AMD + "FROM a\n"}
    folder = project(tmp_path, [card(), multi("m", "own:1"), multi("n", "other:1")], files)
    plan, _ = make_build_plan(inputs(folder))
    assert [(one.key, one.image) for one in plan.given] == [("m", "own:1"), ("n", "other:1")]
    assert [build.model for build in plan.builds] == ["dummy"]
    plan, _ = make_build_plan(inputs(folder, registry="r:1"))
    assert [build.model for build in plan.builds] == ["dummy", "m", "n"]
    with pytest.raises(InputError, match=r"launcher slurm_multi .*say --registry R"):
        make_build_plan(inputs(project(tmp_path, [multi("m")], files)))


def test_a_given_image_for_all(tmp_path: Path) -> None:
    folder = project(tmp_path, [card(), multi("m", "own:1"), multi("n", "other:1")], {})
    plan, _ = make_build_plan(inputs(folder, use_image="mine:1", dockerfiles={}))
    assert {one.image for one in plan.given} == {"mine:1"} and not plan.builds
    first = plan.given[0].card
    assert (first["n_gpus"], first["timeout"], first["prebuilt"], first["args"]) == ("8", -1, True, "")
    assert first["env_vars"] == {"DOCKER_IMAGE_NAME": "mine:1"}
    plan, _ = make_build_plan(inputs(folder, use_image="auto", dockerfiles={}))
    assert {one.image for one in plan.given} == {"own:1"}
    assert any("m names own:1, n names other:1" in words for words in plan.warnings)
    with pytest.raises(InputError, match="none of the chosen models names an image"):
        make_build_plan(inputs(folder, "dummy", use_image="auto", dockerfiles={}))
    with pytest.raises(InputError, match="cannot use --use-image with --registry"):
        make_build_plan(inputs(folder, use_image="mine:1", registry="r:1", dockerfiles={}))


def test_a_batch_builds_what_is_new_and_records_the_others(tmp_path: Path) -> None:
    files = {"docker/dummy.ubuntu.amd.Dockerfile": AMD + "FROM a\n"}
    folder = project(tmp_path, [card("new"), card("kept"), card("given")], files)
    (tmp_path / "batch.json").write_text(
        json.dumps(
            [
                {"model_name": "new", "build_new": True, "registry": "other"},
                {"model_name": "kept"},
                {"model_name": "given", "registry_image": "r/given:1", "registry": "r"},
            ]
        )
    )
    batch = read_batch(tmp_path / "batch.json")
    made = inputs(folder, "new")
    others = inputs(folder, "kept", "given").cards
    made = inputs(folder, "new", batch=batch, others=others, registry="")
    plan, _ = make_build_plan(made)
    assert [(build.image, build.registry) for build in plan.builds] == [("ci-new_dummy.ubuntu.amd", "other")]
    assert [(one.key, one.image, one.registry) for one in plan.given] == [
        ("ci-kept_dummy.ubuntu.amd", "dockerhub/ci-kept_dummy.ubuntu.amd", "dockerhub"),
        ("ci-given_dummy.ubuntu.amd", "r/given:1", "r"),
    ]
    with pytest.raises(DiscoveryError, match="no model of the batch manifest has build_new"):
        make_build_plan(inputs(folder, "new", batch=(BatchEntry("new"),)))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "expected a list of models, found an object"),
        (["x"], r"\[0\]: expected an object"),
        ([{}], r"\[0\].model_name: it is required"),
        ([{"model_name": "a", "build_neu": True}], "did you mean 'build_new'"),
        ([{"model_name": "a", "build_new": "yes"}], "expected true or false"),
        ([{"model_name": "a", "registry": 1}], "registry: expected text"),
    ],
)
def test_a_batch_that_cannot_be_read(tmp_path: Path, document: Any, words: str) -> None:
    (tmp_path / "batch.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words):
        read_batch(tmp_path / "batch.json")


@pytest.mark.parametrize("name", [name for name in EVIL if name not in ("-x", "a//b")])
def test_a_model_name_that_no_engine_takes_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path, [card(name[:255])], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    with pytest.raises(InputError, match=r"(?s)cannot build models.json: .*no engine takes"):
        make_build_plan(inputs(folder))


@pytest.mark.parametrize("value", [text for text in EVIL if "\0" not in text])
def test_evil_values_stay_one_word_of_the_command_line(tmp_path: Path, value: str) -> None:
    from phalanx.controller.builds.argv import Builder, build_argv

    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    plan, _ = make_build_plan(inputs(folder, context={"docker_build_arg": {"X": value}}))
    argv = build_argv(Builder("1", True, True), plan.builds, fresh=False, pull=True)
    assert argv[argv.index("--build-arg") + 1] == f"X={value}"
    assert all("\n" not in line for line in plan_lines(plan))


def test_nothing_chosen(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {})
    with pytest.raises(DiscoveryError, match="no model is chosen"):
        make_build_plan(inputs(folder, cards=(), dockerfiles={}))
