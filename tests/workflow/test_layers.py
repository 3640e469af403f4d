"""Manifest, file and command line, one over the other: who replaces whom, and what each origin says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.workflow.context import Context, load_context
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.layers import Layer

MANIFEST = "build_manifest.json"
OPTION = "--additional-context"


def over_manifest(manifest: dict[str, Any], said: dict[str, Any] | None = None) -> Context:
    return load_context(json.dumps(said) if said else None, below=[Layer(MANIFEST, manifest)])


def test_what_is_said_at_run_time_goes_over_a_manifest_key_by_key() -> None:
    manifest = {
        "docker_env_vars": {"A": "build", "B": "build"},
        "docker_mounts": {"/data": "/build", "/more": "/build"},
        "docker_build_arg": {"X": "build"},
        "slurm": {"partition": "build", "time": "1:00"},
        "docker_gpus": "0-3",
    }
    context = over_manifest(
        manifest,
        {"docker_env_vars": {"A": "run"}, "docker_mounts": {"/data": "/run"}, "slurm": {"partition": "run"}},
    )
    assert context.docker_env == {"A": "run", "B": "build"}
    assert context.mounts == {"/data": "/run", "/more": "/build"}
    assert context.build_args == {"X": "build"}
    assert context.docker_gpus == "0-3"
    assert context.slurm is not None
    assert (context.slurm.partition, context.slurm.time) == ("run", "1:00")
    assert context.origin("docker_env_vars.A") == f"{OPTION}: docker_env_vars.A"
    assert context.origin("docker_env_vars.B") == f"{MANIFEST}: docker_env_vars.B"
    assert context.origin("docker_mounts./more") == f"{MANIFEST}: docker_mounts./more"
    assert context.origin("slurm.time") == f"{MANIFEST}: slurm.time"
    assert context.origin("slurm") == f"{OPTION}: slurm"
    assert context.warnings == ()


def test_what_a_manifest_leaves_empty_is_not_said() -> None:
    manifest = {
        "docker_gpus": {}, "gpu_vendor": "", "guest_os": None, "slurm": {}, "k8s": {}, "kubernetes": None,
        "docker_env_vars": {"EMPTY": "", "NONE": None}, "distributed": {"launcher": "", "port": None},
        "deployment_config": {"target": "local", "k8s": {}, "slurm": {}, "env_vars": {}, "debug": False},
    }  # fmt: skip
    context = over_manifest(manifest)
    assert (context.docker_env, context.gpu_vendor, context.slurm) == ({"EMPTY": ""}, "", None)
    assert (context.deploy, context.launcher, context.blocks) == ("local", "", {})


def test_keys_of_a_manifest_that_are_not_known_are_named_and_not_used() -> None:
    context = over_manifest({"slurm": {"nodes": 2, "partitoin": "x"}, "sumary": 1, "monitor": True})
    assert context.warnings == (
        f"{MANIFEST}: slurm.partitoin: it is not a known key; did you mean 'partition'?; it is not used",
        f"{MANIFEST}: sumary: it is not a known key; it is not used",
        f"{MANIFEST}: this version does not act on monitor",
    )
    with pytest.raises(InputError, match=r"cannot read build_manifest.json: slurm.nodes: expected a whole"):
        over_manifest({"slurm": {"nodes": "two", "x": 1}})


def test_unknown_keys_may_be_warned_of_everywhere() -> None:
    text = '{"slrm": 1, "tools": [{"name": "a"}, {"name": "b", "cdm": 1}], "partition": "x"}'
    warnings = load_context(text, unknown_keys="warn").warnings
    assert any("slrm: it is not a known key; did you mean 'slurm'?" in words for words in warnings)
    assert any("tools[1].cdm: it is not a known key; did you mean 'cmd'?" in words for words in warnings)
    assert any("partition: it is not a key of the top level" in words for words in warnings)
    with pytest.raises(InputError, match=r"slurm.nodes: expected"):
        load_context('{"slrm": 1, "slurm": {"nodes": "x"}}', unknown_keys="warn")
    assert len(load_context('{"slrm": "${NOPE}"}', unknown_keys="warn").warnings) == 1


def test_a_block_that_the_command_line_replaces_is_told_with_what_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "ctx.json"
    file.write_text('{"docker_env_vars": {"A": "1", "B": "2"}, "slurm": {"nodes": 2}}')
    context = load_context('{"docker_env_vars": {"A": "3"}, "slurm": {"nodes": 3}}', file)
    assert context.docker_env == {"A": "3"}
    assert context.warnings == (
        f"{OPTION}: docker_env_vars replaces that of {file} whole; no longer there: B",
    )


def test_file_and_command_line_together_go_over_the_manifest(tmp_path: Path) -> None:
    file = tmp_path / "ctx.json"
    file.write_text('{"docker_env_vars": {"B": "file", "C": "file"}, "env_vars": {"E": "file"}}')
    below = [Layer(MANIFEST, {"docker_env_vars": {"A": "m", "B": "m", "E": "m"}})]
    context = load_context('{"gpu_vendor": "amd"}', file, below)
    assert context.docker_env == {"A": "m", "B": "file", "C": "file"}
    assert context.env == {"E": "file"}, "what run time says goes over the manifest, in either environment"
    assert context.origin("docker_env_vars.C") == f"{file}: docker_env_vars.C"
    assert context.origin("gpu_vendor") == f"{OPTION}: gpu_vendor"


@pytest.mark.parametrize(
    ("manifest", "said", "check"),
    [
        ({"slurm": {"nodes": 1}}, {"distributed": {"nnodes": 4}}, ("nnodes", 4)),
        ({"gpus_per_node": 8}, {"n_gpus": 2}, ("gpu_count", 2)),
        ({"gpus_per_node": 8}, {"slurm": {"gpus_per_node": 2}}, ("gpu_count", None)),
        ({"distributed": {"port": 1}}, {"distributed": {"master_port": 2}}, ("port", 2)),
        ({"distributed": {"port": 1}}, {"launcher": {"master_port": 2}}, ("port", None)),
        (
            {"distributed": {"launcher": "vllm"}},
            {"multi_node_args": {"RUNNER": "torchrun"}},
            ("launcher", ""),
        ),
        ({"MAD_CONTAINER_IMAGE": "a"}, {"docker_env_vars": {"MAD_CONTAINER_IMAGE": "b"}}, ("image", "")),
        ({"gen_sys_env_details": True}, {"generate_sys_env_details": False}, ("system_details", False)),
        ({"deploy": "local"}, {"slurm": {"nodes": 1}}, ("deploy", "")),
        ({"slurm": {"nodes": 1}}, {"deploy": "local"}, ("deploy", "local")),
    ],
)
def test_the_same_thing_by_another_name_is_the_same_thing(
    manifest: dict[str, Any], said: dict[str, Any], check: tuple[str, Any]
) -> None:
    context = over_manifest(manifest, said)
    assert getattr(context, check[0]) == check[1]
    if said.get("distributed", {}).get("nnodes"):
        assert context.slurm is not None
        assert context.slurm.nodes is None


def test_a_deployment_is_folded_into_the_keys_it_stands_for() -> None:
    context = load_context(
        json.dumps(
            {
                "deployment_config": {
                    "target": "slurm",
                    "slurm": {"nodes": 2, "partition": "low"},
                    "debug": True,
                },
                "slurm": {"partition": "top"},
            }
        )
    )
    assert context.slurm is not None
    assert (context.slurm.nodes, context.slurm.partition) == (2, "top")
    assert (context.deploy, context.debug) == ("slurm", True)
    assert context.origin("slurm.nodes") == f"{OPTION}: deployment_config: slurm.nodes"
    assert context.origin("slurm.partition") == f"{OPTION}: slurm.partition"
    assert load_context('{"deploy": {"target": "slurm"}}').deploy == "slurm"


@pytest.mark.parametrize(("said", "deploy"), [("local", "local"), ("docker", "local"), ("SLURM", "slurm")])
def test_deploy_is_the_name_of_a_target(said: str, deploy: str) -> None:
    assert load_context(json.dumps({"deploy": said})).deploy == deploy


@pytest.mark.parametrize("said", ["k8s", "kubernetes", {"target": "k8s"}, {"k8s": {}}])
def test_there_is_no_kubernetes_yet(said: object) -> None:
    with pytest.raises(InputError, match="there is no kubernetes target yet"):
        load_context(json.dumps({"deploy": said}))


def test_placeholders_are_resolved_wherever_text_stands() -> None:
    document = {
        "slurm": {"partition": "${PART}", "nodes": "${NODES}"},
        "docker_mounts": {"/data": "${DATA}"},
        "model_args": "${ARGS}",
        "data": {"d": {"local": {"path": "${DATA}"}}},
        "vllm": {"deep": [{"er": "${DATA}"}]},
        "docker_env_vars": {"T": "${MAD_SECRETS_T}"},
        "log_error_patterns": ["${NOT_ONE}"],
    }
    environ = {"PART": "gpu", "NODES": "3", "DATA": "/d", "ARGS": "--a 1"}
    context = load_context(json.dumps(document), environ=environ)
    assert context.slurm is not None
    assert (context.slurm.partition, context.slurm.nodes) == ("gpu", 3)
    assert (context.mounts, context.model_args) == ({"/data": "/d"}, "--a 1")
    assert context.data["d"]["local"].path == "/d"
    assert context.blocks["vllm"] == {"deep": [{"er": "/d"}]}
    assert context.docker_env == {"T": "${MAD_SECRETS_T}"}, "environments are resolved where they are used"
    assert context.error_scan.patterns == ("${NOT_ONE}",)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"docker_mounts": {"/d": "${NOPE}"}}, r"docker_mounts./d: it is \$\{NOPE\}, and NOPE is not set"),
        ({"docker_mounts": {"/${A}": "/d"}}, r"docker_mounts: a key holds the placeholder"),
        ({"model_args": "--t ${HF_TOKEN}"}, "model_args: it holds the placeholder"),
        (
            {"model_args": "${HF_TOKEN}"},
            "model_args: .* is a secret, .* give it to the workload as docker_env",
        ),
        ({"tools": [{"name": "x", "cmd": "a ${B}"}]}, r"tools\[0\].cmd: it holds the placeholder"),
        ({"multi_node_args": {"a": {"b": "${NOPE}"}}}, "multi_node_args.a.b: it is"),
    ],
)
def test_placeholders_that_cannot_be_resolved_are_refused_by_path(
    document: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_context(json.dumps(document), environ={"HF_TOKEN": "hf_1234567"})
    with pytest.raises(InputError, match=f"{MANIFEST}: {words}"):
        load_context(below=[Layer(MANIFEST, document)], environ={"HF_TOKEN": "hf_1234567"})
