"""The workload's environment and its secrets: layers, origins, placeholders, and values nobody may see."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.plan.codec import to_json
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.make import plan_for_command, plan_for_tags, secrets_of
from phalanx.controller.plan.secrets import Secret, Secrets, looks_secret, mask_argv, read_secrets
from phalanx.controller.workflow.errors import InputError

from .making import command, models

CANARY = 'c4nary-"quoted"-\\-värde'


def test_later_layers_win_and_say_where_they_are_from() -> None:
    card = {"env_vars": {"A": "card", "B": "card", "C": "card"}}
    context = '{"env_vars": {"B": "ctx"}, "docker_env_vars": {"C": "ctx"}}'
    env = plan_for_tags(models(card, context=context, env=("D=cli", "C=cli"))).cases[0].env
    assert {name: env[name].value for name in "ABCD"} == {"A": "card", "B": "ctx", "C": "cli", "D": "cli"}
    assert env["A"].origin == "models.json: [0] (m0): env_vars.A"
    assert env["B"].origin == "--additional-context: env_vars.B"
    assert env["C"].origin == "-e"


def test_a_name_alone_takes_the_value_from_here_as_it_is() -> None:
    env = plan_for_command(command(env=("X",), environ={"X": "${HOME}/x"})).cases[0].env
    assert env["X"].value == "${HOME}/x"
    with pytest.raises(InputError, match="-e X: the variable is not set here"):
        plan_for_command(command(env=("X",)))


def test_a_placeholder_takes_the_exported_value_and_never_its_own_text() -> None:
    context = '{"docker_env_vars": {"MODEL_ROOT": "${ROOT}"}}'
    env = plan_for_command(command(context=context, environ={"ROOT": "/m"})).cases[0].env
    assert env["MODEL_ROOT"].value == "/m"
    with pytest.raises(
        InputError, match=r"docker_env_vars.MODEL_ROOT: MODEL_ROOT is \$\{ROOT\}, and ROOT is not"
    ):
        plan_for_command(command(context=context))


@pytest.mark.parametrize("value", ["${HOME}/x", "a${B:-c}", "${A}${B}"])
def test_a_placeholder_within_a_text_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="holds the placeholder"):
        plan_for_command(command(env=(f"P={value}",), environ={"HOME": "/h", "A": "a", "B": "b"}))


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "NNODES", "PHALANX_SOCKET"])
def test_what_each_rank_gets_from_phalanx_cannot_be_set_for_all(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is set by phalanx"):
        plan_for_command(command(env=(f"{name}=1",)))


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A\nB", "é", "$(x)"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no name of a variable"):
        plan_for_command(command(env=(f"{name}=1",)))


@pytest.mark.parametrize(
    "name", ["MAD_SECRETS_X", "HF_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "API_KEY"]
)
def test_these_names_are_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYS", "SECRETARY", "PATH"])
def test_these_names_are_not(name: str) -> None:
    assert not looks_secret(name)


def test_a_secret_is_in_no_form_of_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(CANARY + "\n")
    environ = {"MAD_SECRETS_A": CANARY, "THERE": CANARY}
    context = '{"docker_env_vars": {"HF_TOKEN": "${THERE}"}}'
    inputs = models(
        context=context,
        environ=environ,
        env=(f"MY_TOKEN={CANARY}",),
        secrets=read_secrets(["PLAIN=env:THERE", f"FROM_FILE=file:{file}"], environ),
        argv=("phalanx", "-e", f"MY_TOKEN={CANARY}", f"-eMY_TOKEN={CANARY}", f"x{CANARY}y"),
    )
    plan, secrets = plan_for_tags(inputs), secrets_of(inputs)
    names = {"MAD_SECRETS_A", "HF_TOKEN", "MY_TOKEN", "PLAIN", "FROM_FILE"}
    assert {name for name, value in plan.cases[0].env.items() if value.secret} == names
    assert secrets.values_by_name() == dict.fromkeys(names, CANARY)
    for text in (repr(plan), to_json(plan).decode(), describe(plan), repr(secrets), repr(secrets["PLAIN"])):
        assert "c4nary" not in text


def test_what_is_from_a_secret_variable_is_a_secret_under_any_name() -> None:
    context = '{"docker_env_vars": {"PLAIN": "${MAD_SECRETS_HFTOKEN}", "ROOT": "${R}"}}'
    environ = {"MAD_SECRETS_HFTOKEN": CANARY, "R": "/r"}
    inputs = models(context=context, environ=environ, argv=("phalanx", "-c", context))
    plan = plan_for_tags(inputs)
    assert plan.cases[0].env["PLAIN"].secret
    assert not plan.cases[0].env["ROOT"].secret
    assert secrets_of(inputs).values_by_name()["PLAIN"] == CANARY
    for text in (repr(plan), to_json(plan).decode(), describe(plan)):
        assert "c4nary" not in text


@pytest.mark.parametrize(
    "context",
    [
        '{"docker_env_vars": "HF_TOKEN=c4nary"}',
        '{"docker_env_vars": {"HF_TOKEN": ["c4nary"]}}',
        '{"docker_env_vars": {"HF_TOKEN": "c4nary\\u0000"}}',
        '{"docker_env_vars": {"HF_TOKEN": "${X:-c4nary}"}}',
        '{"docker_mounts": {"/d": "${MAD_SECRETS_X}"}}',
        '{"tools": [{"name": "x", "env_vars": {"A_TOKEN": null, "B": "c4nary"}}]}',
    ],
)
def test_an_error_does_not_show_a_secret(context: str) -> None:
    with pytest.raises(InputError) as refused:
        plan_for_command(command(context=context, environ={"MAD_SECRETS_X": "c4nary"}))
    assert "c4nary" not in str(refused.value)


def test_a_context_with_a_secret_is_masked_whole_in_the_stored_command_line() -> None:
    context = '{"docker_env_vars": {"X_TOKEN": "a\\u0062"}}'
    plan = plan_for_command(command(context=context, argv=("phalanx", "--additional-context", context)))
    assert plan.argv == ("phalanx", "--additional-context", "••••")
    assert secrets_of(command(context=context)).values_by_name() == {"X_TOKEN": "ab"}


def test_a_context_that_names_the_variable_of_a_secret_is_shown() -> None:
    secrets = Secrets({"HF_TOKEN": Secret("canary-1", "env:HF_TOKEN")})
    said = '{"docker_env_vars": {"HF_TOKEN": "${MY_TOKEN}"}}'
    assert mask_argv(["-c", said], secrets) == ("-c", said)
    both = said.replace("}}", '}, "x": "canary-1"}')
    assert "canary-1" not in "".join(mask_argv(["-c", both], secrets))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("X=abc", "can be read by everyone"),
        ("X=env:NOPE", "the variable NOPE is not set"),
        ("X", "the variable X is not set"),
        ("X=file:/nowhere", "cannot read /nowhere"),
        ("a-b=env:X", "letters, digits and _ only"),
    ],
)
def test_a_secret_that_cannot_be_had_is_refused(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_secrets([spec], {})


@given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text and "${" not in text))
def test_any_other_text_is_a_value_as_it_is(value: str) -> None:
    assert plan_for_command(command(env=(f"V={value}",))).cases[0].env["V"].value == value
