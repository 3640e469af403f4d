"""How ranks are formed, as cards and contexts say it: layers, origins, and what is refused by its key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.workflow.card import ModelCard, read_cards
from phalanx.controller.workflow.context import Context, load_context
from phalanx.controller.workflow.distributed import Split, context_nodes, distributed_of
from phalanx.controller.workflow.errors import InputError

CARD = "models.json: [0] (bert)"
CONTEXT = "--additional-context"


def card(**fields: Any) -> ModelCard:
    return read_cards([{"name": "bert", "scripts": "s", **fields}], "models.json")[0]


def context(**blocks: Any) -> Context:
    return load_context(json.dumps(blocks))


def test_the_context_goes_over_the_card_key_by_key_and_each_value_has_its_origin() -> None:
    said = distributed_of(
        card(distributed={"launcher": "vllm", "nproc_per_node": "8", "backend": "nccl", "port": 29501}),
        context(distributed={"launcher": "torchrun"}),
    )
    assert (said.launcher, said.nproc_per_node, said.backend, said.port) == ("torchrun", 8, "nccl", 29501)
    assert said.origin("launcher") == f"{CONTEXT}: distributed.launcher"
    assert said.origin("nproc_per_node") == f"{CARD}: distributed.nproc_per_node"
    assert said.origin("nnodes") == "default"


def test_the_launcher_block_beats_distributed_and_the_old_form_counts_least() -> None:
    blocks = {
        "multi_node_args": {"RUNNER": "torchrun", "MAD_RUNTIME_NGPUS": "4", "NNODES": 2, "MASTER_PORT": 6006},
        "distributed": {"nproc_per_node": 6, "nnodes": 3},
        "launcher": {"type": "deepspeed", "nproc_per_node": 8, "master_port": 7000},
    }
    said = distributed_of(None, context(**blocks))
    assert (said.launcher, said.nproc_per_node, said.nnodes, said.port) == ("deepspeed", 8, 3, 7000)
    assert context_nodes(context(**blocks)) == (3, f"{CONTEXT}: distributed.nnodes")
    assert context_nodes(context(multi_node_args=blocks["multi_node_args"])) == (
        2,
        f"{CONTEXT}: multi_node_args.NNODES",
    )


def test_what_phalanx_knows_better_is_said_to_be_unused_and_interfaces_are_kept() -> None:
    block = {"NODE_RANK": 0, "MASTER_ADDR": "n1", "HOST_LIST": "n1,n2", "NCCL_SOCKET_IFNAME": "ib0"}
    said = distributed_of(None, context(multi_node_args=block))
    assert said.env == {"NCCL_SOCKET_IFNAME": "ib0"}
    assert [warning.split()[1] for warning in said.warnings] == [
        f"multi_node_args.{name}" for name in ("NODE_RANK", "MASTER_ADDR", "HOST_LIST")
    ]


def test_engines_splits_and_primus_are_typed() -> None:
    said = distributed_of(
        card(
            distributed={
                "sglang_disagg": {"prefill_nodes": 2, "decode_nodes": 3, "_note": "x"},
                "vllm_disagg": {"prefill_nodes": "1", "decode_nodes": 1},
                "primus": {"config_path": "a.yaml", "cli_extra": "--x {NODE_RANK}", "backend": "megatron"},
            },
            vllm={"tensor_parallel_size": 4, "enable_expert_parallel": False, "env": {"A": 1, "_c": []}},
        ),
        context(sglang={"tp": 8, "dp_size": 8, "enable_dp_attention": True, "decode_nodes": 4}),
    )
    assert (said.sglang_disagg, said.vllm_disagg) == (Split(2, 4), Split(1, 1))
    assert (said.primus.config_path, said.primus.cli_extra) == ("a.yaml", "--x {NODE_RANK}")
    assert (said.vllm.tensor, said.vllm.expert, said.vllm.env) == (4, False, {"A": "1"})
    assert (said.sglang.tensor, said.sglang.data, said.sglang.attention) == (8, 8, True)
    assert said.origin("vllm.env.A") == f"{CARD}: vllm.env.A"


def test_null_and_empty_say_nothing() -> None:
    said = distributed_of(card(distributed={"launcher": None, "port": "", "primus": None}), Context())
    assert (said.launcher, said.port) == ("", 0)


def test_keys_of_other_tools_in_a_card_are_named_and_not_used() -> None:
    said = distributed_of(card(distributed={"nproc_per_nod": 8, "primus": {"config": "x"}}), Context())
    first, second = said.warnings
    assert first.startswith(
        f"{CARD}: distributed.nproc_per_nod: it is not a known key; did you mean 'nproc_per_"
    )
    assert second.startswith(f"{CARD}: distributed.primus.config: it is not a known key")


def test_what_the_schema_takes_is_read() -> None:
    block = {"enabled": "true", "nproc_per_node": 8.0, "primus": {"cli_extra": ["--a", "b c"]}}
    said = distributed_of(card(distributed=block), Context())
    assert (said.enabled, said.nproc_per_node, said.primus.cli_extra) == (True, 8, "--a 'b c'")


def test_a_launcher_that_is_not_enabled_is_told() -> None:
    said = distributed_of(card(distributed={"launcher": "torchrun", "enabled": False}), Context())
    assert said.warnings == (f"{CARD}: distributed.enabled is false: torchrun forms no ranks",)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"nnodes": "two"}, "distributed.nnodes: expected a whole number from 1 to 100000, found text 'two'"),
        ({"nnodes": 0}, "found the number 0"),
        ({"nproc_per_node": True}, "distributed.nproc_per_node: expected a whole number .* found true"),
        ({"nproc_per_node": 1.5}, "found the number 1.5"),
        ({"port": 65536}, "distributed.port: expected a whole number from 1 to 65535"),
        ({"launcher": ["torchrun"]}, "distributed.launcher: expected text, found a list"),
        ({"backend": "nc\ncl"}, "distributed.backend: it holds a control character"),
        ({"backend": "x" * 5000}, "longer than 4096"),
        ({"enabled": "yes"}, "distributed.enabled: expected true or false, found text 'yes'"),
        ({"primus": "x"}, "distributed.primus: expected an object, found text 'x'"),
        (
            {"sglang_disagg": {"prefill_nodes": -1}},
            "distributed.sglang_disagg.prefill_nodes: expected a whole",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_key_and_file(block: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^cannot use models.json: .0. .bert.: {words}|{words}"):
        distributed_of(card(distributed=block), Context())


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (
            {"vllm": {"tensor_paralel_size": 8}},
            "vllm.tensor_paralel_size: .* did you mean 'tensor_parallel_size'",
        ),
        ({"vllm": {"env": ["A"]}}, "vllm.env: expected an object, found a list"),
        ({"vllm": {"env": {"A": None}}}, r"vllm.env.A: expected text or a number, found null"),
        ({"sglang": {"enable_dp_attention": 1}}, "sglang.enable_dp_attention: expected true or false"),
        ({"launcher": {"kind": "torchrun"}}, "launcher.kind: it is not a known key"),
        ({"multi_node_args": {"RUNER": "torchrun"}}, "multi_node_args.RUNER: .* did you mean 'RUNNER'"),
    ],
)
def test_the_same_of_a_context(blocks: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"cannot (use|read) {CONTEXT}: {words}"):
        distributed_of(None, context(**blocks))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["launcher", "nnodes", "nproc_per_node", "port", "primus", "sglang_disagg", "enabled"])


@given(st.dictionaries(KEYS | st.text(max_size=4), JSON, max_size=5))
def test_whatever_a_card_holds_is_a_value_or_an_input_error(block: dict[str, Any]) -> None:
    given_card = ModelCard("m", "s", distributed=block, vllm=block, sglang=block)
    try:
        said = distributed_of(given_card, Context())
    except InputError as error:
        assert str(error).startswith("cannot use models.json: [0] (m): ")
    else:
        assert 0 <= said.nnodes <= 100_000
