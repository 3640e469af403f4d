"""From a project and its context to a plan of builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.builds import inputs as build_inputs
from phalanx.controller.builds.dockerfiles import files_of
from phalanx.controller.builds.inputs import BatchEntry, read_batch
from phalanx.controller.builds.make import make_build_plan
from phalanx.controller.builds.model import BuildArg
from phalanx.controller.builds.registry import login_host
from phalanx.controller.builds.words import plan_document, plan_lines
from phalanx.controller.workflow.errors import DiscoveryError, InputError

from tests.builds.making import AMD, NVIDIA, card, inputs, project

BASE = "ARG BASE_DOCKER=rocm/pytorch\nFROM $BASE_DOCKER\n"
EVIL = ["a b", "a'b", 'a"b', "$(touch x)", "`x`", "a\nb", "-x", "ä", "a;b", "a\0b", "..", "a//b", "x" * 300]


def unbuilt(folder: Path) -> str:
    """Why the one model of a project is not built."""
    plan, _ = make_build_plan(inputs(folder))
    assert not plan.builds
    (one,) = plan.unbuilt
    assert one.error.startswith("cannot build models.json: [0]")
    return one.error


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
    assert "docker/bare.Dockerfile: it has no '# CONTEXT {...}' line" in why["bare"]
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
    assert "dockercontext '../..' leaves the project's folder" in unbuilt(bad)


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
        "additional_docker_run_options": f"-te 'OPTION_TOKEN={CANARY}' --ipc host",
        "vllm": {"hf_token": CANARY},
    }
    cards = [card(name, dockerfile=f"docker/{name}", **more) for name in ("plain", "arg", "mount")]
    folder = project(tmp_path, cards, files)
    context = {
        "docker_build_arg": {
            "API_KEY": CANARY,
            "UNASKED_TOKEN": CANARY,
            "INDEX": f"https://me:{CANARY}@host/x",
        },
        "env_vars": {"HF_TOKEN": CANARY},
        "docker_env_vars": {"MAD_SECRETS_Y": CANARY, "OPEN": "1", "OTHER_TOKEN": "${MAD_SECRETS_X}"},
        "tools": [{"name": "rocprof", "env_vars": {"TOOL_TOKEN": CANARY, "LEVEL": "2"}}],
        "vllm": {"env": {"VLLM_API_KEY": CANARY}},
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
    assert plan.secrets_required == ("MAD_SECRETS_Y", "HF_TOKEN", "TOOL_TOKEN", "VLLM_API_KEY")
    assert plan.context["tools"] == [{"name": "rocprof", "env_vars": {"LEVEL": "2"}}]
    assert plan.deployment["vllm"] == {"env": {}}
    of_card = ["CARD_TOKEN", "hf_token", "OPTION_TOKEN"]
    assert [build.card["secrets_required"] for build in plan.builds] == [of_card] * 3
    assert [build.card["env_vars"] for build in plan.builds] == [{"A": "1"}] * 3
    assert {build.card["additional_docker_run_options"] for build in plan.builds} == {
        "-te OPTION_TOKEN --ipc host"
    }
    assert plan.context["docker_env_vars"] == {"OPEN": "1", "OTHER_TOKEN": "${MAD_SECRETS_X}"}
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
    assert "has the credentials 'db'" in unbuilt(asks)


def test_a_placeholder_is_resolved_or_refused(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    said: dict[str, Any] = {"docker_build_arg": {"LEVEL": "${LEVEL_HERE}"}}
    plan, _ = make_build_plan(inputs(folder, context=said, environ={"LEVEL_HERE": "7"}))
    assert plan.builds[0].args[0].value == "7"
    with pytest.raises(InputError, match="LEVEL_HERE is not set here"):
        make_build_plan(inputs(folder, context=said))


def test_tools_are_needed_only_where_they_are_copied_from(tmp_path: Path) -> None:
    files = {"docker/dummy.Dockerfile": AMD + "FROM a\nCOPY --from=tools /x /x\n"}
    assert "the project has no folder docker/common" in unbuilt(project(tmp_path, [card()], files))
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
    assert "no engine takes" in unbuilt(folder)


@pytest.mark.parametrize("value", [text for text in EVIL if "\0" not in text])
def test_evil_values_stay_one_word_of_the_command_line(tmp_path: Path, value: str) -> None:
    from phalanx.controller.builds.argv import Builder, build_argv

    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    plan, _ = make_build_plan(inputs(folder, context={"docker_build_arg": {"X": value}}))
    argv = build_argv(Builder("1", True, True), plan.builds, fresh=False, pull=True)
    assert argv[argv.index("--build-arg") + 1] == f"X={value}"
    assert all("\n" not in line for line in plan_lines(plan))


def test_one_bad_file_or_name_stops_no_other_model(tmp_path: Path) -> None:
    files = {
        "docker/dummy.Dockerfile": AMD + "FROM a\n",
        "docker/broken.Dockerfile": "# CONTEXT {'a'\nFROM a\n",
    }
    cards = [card(), card("Bad Name"), card("broken", dockerfile="docker/broken")]
    folder = project(tmp_path, cards, files)
    (folder / "docker/dummy.tar.gz").write_bytes(b"\x1f\x8b\xff")
    plan, _ = make_build_plan(inputs(folder))
    assert [build.image for build in plan.builds] == ["ci-dummy_dummy"]
    assert [one.model for one in plan.unbuilt] == ["Bad Name", "broken"]
    assert "docker/broken.Dockerfile: line 1" in plan.unbuilt[1].error
    assert any(
        "docker/dummy.tar.gz: byte 1 is not UTF-8 text, and is not built" in word for word in plan.warnings
    )


def test_given_images_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {})
    plan, _ = make_build_plan(inputs(folder, "dummy:k=1", "dummy:k=2", use_image="img:1", dockerfiles={}))
    assert [(one.key, one.card["args"]) for one in plan.given] == [("dummy", " --k 1"), ("dummy_2", " --k 2")]


def test_two_images_under_one_name_in_a_registry_are_refused(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    batch = (BatchEntry("dummy", True, registry_image="r:1/dummy:rel"),)
    with pytest.raises(InputError, match="both as r:1/dummy:rel"):
        make_build_plan(inputs(folder, batch=batch, registry="r:1", archs=("gfx90a", "gfx942")))
    plan, _ = make_build_plan(inputs(folder, batch=batch, registry="r:1", archs=("gfx90a",)))
    assert plan.builds[0].pushed == "r:1/dummy:rel"


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "PHALANX_X"])
def test_a_build_has_no_ranks_and_may_have_arguments_of_these_names(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path, [card()], {"docker/dummy.Dockerfile": AMD + "FROM a\n"})
    plan, _ = make_build_plan(inputs(folder, context={"docker_build_arg": {name: "8"}}))
    assert plan.builds[0].args[0].name == name


def test_a_team_on_docker_hub_is_docker_hub(tmp_path: Path) -> None:
    files = {"docker/dummy.Dockerfile": AMD + "FROM a\n"}
    environ = {"MAD_DOCKERHUB_USER": "me", "MAD_DOCKERHUB_PASSWORD": "p"}
    made = inputs(project(tmp_path, [card()], files), registry="docker.io/team", environ=environ)
    login = made.credentials.login("docker.io/team")
    assert login is not None and (login.username, login_host("docker.io/team")) == ("me", "")
    assert make_build_plan(made)[0].builds[0].pushed == "docker.io/team/ci-dummy_dummy"


def test_a_tag_that_no_registry_takes_is_refused_before_the_build(tmp_path: Path) -> None:
    name = "x" * 120
    files = {"docker/dummy.Dockerfile": AMD + "FROM a\n"}
    environ = {"MAD_DOCKERHUB_USER": "me", "MAD_DOCKERHUB_PASSWORD": "p", "MAD_DOCKERHUB_REPO": "me/ci"}
    folder = project(tmp_path, [card(name)], files)
    plan, _ = make_build_plan(inputs(folder, registry="docker.io", environ=environ))
    assert "is longer than 128 characters" in plan.unbuilt[0].error


def test_a_thousand_models_of_one_folder_list_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []

    def listing(folder: Path) -> list[str]:
        listed.append(folder)
        return files_of(folder)

    monkeypatch.setattr(build_inputs, "files_of", listing)
    files = {f"docker/m{number}.Dockerfile": AMD + "FROM a\n" for number in range(50)}
    cards = [card(f"m{number}", dockerfile=f"docker/m{number}") for number in range(50)]
    plan, _ = make_build_plan(inputs(project(tmp_path, cards, files)))
    assert (len(plan.builds), listed) == (50, [tmp_path / "docker"])


def test_nothing_chosen(tmp_path: Path) -> None:
    folder = project(tmp_path, [card()], {})
    with pytest.raises(DiscoveryError, match="no model is chosen"):
        make_build_plan(inputs(folder, cards=(), dockerfiles={}))
