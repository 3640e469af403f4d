"""Contexts of any shape: a value or an InputError that names source and key path, and nothing in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.workflow.context import Context, load_context
from phalanx.controller.workflow.context_schema import known_keys
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.layers import Layer

OPTION = "--additional-context"
KEYS = sorted({key for keys in known_keys().values() for key in keys})
EVIL = (
    "", " ", "a b", "'", '"', "`id`", "$(touch x)", ";", "a\nb", "\r", "-x", "--", "${A}", "${A:-b}", "é✓",
    "\0", "\ud800", "a\0b", "../..", "/", "\\", "\x1b[2J", "%s", "{}", "[0]", "a.b", "_", "\u202e",
    "x" * 5000,
)  # fmt: skip
texts = st.one_of(st.sampled_from(EVIL), st.text(max_size=20))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.just(10**30), st.just(float("inf"))
)
names = st.one_of(st.sampled_from(KEYS), texts)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
literals = st.recursive(
    leaves | st.binary(max_size=3) | st.sets(st.integers(0, 3), max_size=2),
    lambda inner: (
        st.tuples(inner, inner) | st.lists(inner, max_size=2) | st.dictionaries(names | st.integers(), inner)
    ),
    max_leaves=6,
)
documents = st.dictionaries(st.sampled_from(known_keys()[()]) | texts, values, max_size=4)


def outcome(load: Callable[[], Context], source: str) -> None:
    try:
        context = load()
    except InputError as refused:
        assert source in str(refused)
        str(refused).encode()
    else:
        for path in context.origins:
            assert context.origin(path).endswith(path)


@given(documents)
def test_any_json_is_a_context_or_refused(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    outcome(lambda: load_context(text), OPTION)
    outcome(lambda: load_context(text, unknown_keys="warn"), OPTION)
    outcome(lambda: load_context(below=[Layer("m.json", document)]), "m.json")


@given(st.dictionaries(st.sampled_from(known_keys()[()]), literals, max_size=3))
def test_any_python_literal_is_a_context_or_refused(document: dict[str, Any]) -> None:
    outcome(lambda: load_context(repr(document)), OPTION)


@given(st.text(max_size=60))
def test_any_text_is_a_context_or_refused(text: str) -> None:
    outcome(lambda: load_context(text), OPTION)


@pytest.mark.parametrize("nested", ["[" * 5000, '{"a":' * 5000, '{"vllm":' + "[" * 60 + "]" * 60 + "}"])
def test_what_is_nested_too_deeply_is_refused(nested: str) -> None:
    with pytest.raises(InputError, match=OPTION):
        load_context(nested)


LISTS = ("tools", "pre_scripts", "post_scripts", "data")
PATHS = [
    (*place, key)
    for place, keys in known_keys().items()
    for key in keys
    if not {*LISTS, "deploy"} & set(place)
]


@pytest.mark.parametrize("path", PATHS, ids=".".join)
@given(wrong=st.sampled_from([[[1]], {"never": {"known": [1]}}, [None]]), warn=st.booleans())
def test_every_key_is_typed_and_named_when_its_type_is_wrong(
    path: tuple[str, ...], wrong: Any, warn: bool
) -> None:
    free = {"k8s", "kubernetes", "vllm", "sglang", "multi_node_args"}
    if path[-1] in free and isinstance(wrong, dict):
        wrong = [wrong]
    document: Any = wrong
    for key in reversed(path):
        document = {key: document}
    block = path in known_keys() and path[-1] not in LISTS
    if warn and block and isinstance(wrong, dict):
        assert any("never: it is not" in words for words in said_of(document))
        return
    with pytest.raises(InputError) as refused:
        load_context(json.dumps(document), unknown_keys="warn" if warn else "error")
    assert f"{OPTION}: {'.'.join(path)}" in str(refused.value)


def said_of(document: Any) -> tuple[str, ...]:
    return load_context(json.dumps(document), unknown_keys="warn").warnings


@pytest.mark.parametrize("path", [place for place in known_keys() if place[-1:] != ("data",)], ids=".".join)
@given(name=texts.filter(lambda text: text[:1] != "_"))
def test_a_key_that_nobody_knows_is_named_with_its_path(path: tuple[str, ...], name: str) -> None:
    if name in known_keys()[path] or name in KEYS:
        return
    document: Any = {name: 1}
    for key in reversed(path):
        in_list = key in ("tools", "pre_scripts", "post_scripts")
        required = {"name": "x"} if key == "tools" else {"path": "x"} if in_list else {}
        document = {key: [{**document, **required}] if in_list else document}
    with pytest.raises(InputError) as refused:
        load_context(json.dumps(document))
    assert OPTION in str(refused.value)
    if name.isprintable() and name.isascii() and "${" not in name:
        indexed = [
            f"{part}[0]" if part in ("tools", "pre_scripts", "post_scripts") else part for part in path
        ]
        assert ".".join([*indexed, name]) in str(refused.value)


def slurm(name: str) -> tuple[Callable[[str], Any], Callable[[Context], Any], str]:
    return (
        lambda text: {"slurm": {name: text}},
        lambda context: getattr(context.slurm, name),
        f"slurm.{name}",
    )


FIELDS: list[tuple[Callable[[str], Any], Callable[[Context], Any], str]] = [
    (lambda t: {"docker_env_vars": {"A": t}}, lambda c: c.docker_env["A"], "docker_env_vars.A"),
    (lambda t: {"env_vars": {"A": t}}, lambda c: c.env["A"], "env_vars.A"),
    (lambda t: {"docker_build_arg": {"A": t}}, lambda c: c.build_args["A"], "docker_build_arg.A"),
    (lambda t: {"docker_mounts": {"/d": t}}, lambda c: c.mounts["/d"], "docker_mounts./d"),
    (lambda t: {"docker_mounts": {f"/{t}": "/d"}}, lambda c: next(iter(c.mounts))[1:], "docker_mounts"),
    (lambda t: {"model_args": t}, lambda c: c.model_args, "model_args"),
    (lambda t: {"encapsulate_script": t}, lambda c: c.encapsulate, "encapsulate_script"),
    (lambda t: {"tools": [{"name": t}]}, lambda c: c.tools[0].name, "tools[0].name"),
    (lambda t: {"tools": [{"name": "x", "cmd": t}]}, lambda c: c.tools[0].command, "tools[0].cmd"),
    (
        lambda t: {"tools": [{"name": "x", "env_vars": {"A": t}}]},
        lambda c: c.tools[0].env["A"],
        "tools[0].env_vars.A",
    ),
    (lambda t: {"pre_scripts": [{"path": t}]}, lambda c: c.pre_scripts[0].path, "pre_scripts[0].path"),
    (
        lambda t: {"post_scripts": [{"path": "x", "args": t}]},
        lambda c: c.post_scripts[0].args,
        "post_scripts[0].args",
    ),
    (lambda t: {"data": {"d": {"nas": {"path": t}}}}, lambda c: c.data["d"]["nas"].path, "data.d.nas.path"),
    (
        lambda t: {"data": {"d": {"aws": {"path": "p", "home": t, "args": t}}}},
        lambda c: c.data["d"]["aws"].home,
        "data.d.aws",
    ),
    (lambda t: {"log_error_patterns": [t]}, lambda c: c.error_scan.patterns[0], "log_error_patterns[0]"),
    (
        lambda t: {"log_error_benign_patterns": [t]},
        lambda c: c.error_scan.benign[0],
        "log_error_benign_patterns[0]",
    ),
    (lambda t: {"shared_data": t}, lambda c: c.shared_data, "shared_data"),
    (lambda t: {"MAD_ROCM_PATH": t}, lambda c: c.rocm_path, "MAD_ROCM_PATH"),
    (lambda t: {"distributed": {"launcher": t}}, lambda c: c.launcher, "distributed.launcher"),
    (lambda t: {"vllm": {"a": [t]}}, lambda c: c.blocks["vllm"]["a"][0], "vllm.a[0]"),
    (lambda t: {"slurm": {"modules": [t]}}, lambda c: c.slurm.modules[0], "slurm.modules[0]"),  # type: ignore[union-attr]
    *(
        slurm(name)
        for name in (
            "partition", "time", "account", "qos", "reservation", "constraint", "gres", "output_dir",
            "network_interface", "shared_workspace", "results_dir",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "read", "path"), FIELDS, ids=[field[2] for field in FIELDS])
@given(text=texts)
def test_every_text_arrives_as_it_was_written_or_is_refused_by_its_path(
    make: Callable[[str], Any], read: Callable[[Context], Any], path: str, text: str
) -> None:
    try:
        context = load_context(json.dumps(make(text)), environ={"A": "resolved"})
    except InputError as refused:
        assert f"{OPTION}: {path}" in str(refused)
    else:
        assert read(context) == ("resolved" if text == "${A}" and read(context) != text else text)
