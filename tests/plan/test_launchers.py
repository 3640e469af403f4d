"""What a launcher adds to a case, and what does not fit and is refused before a node is asked for."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.plan.codec import from_json, to_json
from phalanx.controller.plan.launch_table import ROWS
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import CasePlan, SlurmOptions
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.layers import Layer
from phalanx.protocol.messages import Runtime

from .making import command, main_of, models

RUNNER = "MAD_MULTI_NODE_RUNNER"
LAUNCHERS = [row.name for row in ROWS]


def case(launcher: str, nodes: int = 1, n_gpus: str = "8", context: str = "", **more: Any) -> CasePlan:
    card = {"n_gpus": n_gpus, "distributed": {"launcher": launcher, **more.pop("distributed", {})}}
    card |= more.pop("card", {})
    return plan_for_tags(models(card, context=context, nodes=nodes, **more)).cases[0]


def env(made: CasePlan) -> dict[str, str]:
    return {name: value.value for name, value in made.env.items()}


def test_a_script_runs_once_per_node_and_the_runner_forms_the_ranks() -> None:
    made = case("torchrun", 2)
    assert (made.ranks_per_node, main_of(made).per) == (1, "rank")
    assert made.env[RUNNER].template
    assert made.env[RUNNER].origin == "launcher torchrun"
    assert env(case("torchrun"))[RUNNER] == "torchrun --standalone --nproc_per_node=8"


def test_the_command_of_the_user_wins_for_its_model_alone() -> None:
    cards = (
        {"n_gpus": "2", "distributed": {"launcher": "torchrun"}, "env_vars": {RUNNER: "mine {NODE_RANK}"}},
        {"n_gpus": "2", "distributed": {"launcher": "deepspeed"}},
    )
    first, second = plan_for_tags(models(*cards)).cases
    assert (first.env[RUNNER].value, first.env[RUNNER].template) == ("mine {NODE_RANK}", False)
    assert env(second)[RUNNER] == "deepspeed --num_gpus=2"
    assert (first.columns["launcher"], second.columns["launcher"]) == ("torchrun", "deepspeed")


@pytest.mark.parametrize("evil", ["{NODE_RANK}", "{", "}{", "{{P}}", "$(id)", "`id`", "';--", "%s", "\\{P}"])
def test_braces_and_shell_of_users_stay_what_they_are(evil: str) -> None:
    primus = {"config_path": evil, "cli_extra": evil, "backend": evil}
    made = case("primus", 2, distributed={"primus": primus, "backend": evil})
    values = env(made)
    assert values["PRIMUS_CONFIG_PATH"] == values["PRIMUS_CLI_EXTRA"] == values["BACKEND"] == evil
    assert values["DISTRIBUTED_BACKEND"] == evil
    assert not made.env["PRIMUS_CLI_EXTRA"].template


def test_the_login_nodes_environment_gives_no_command() -> None:
    assert env(case("torchrun", environ={RUNNER: "leak"}))[RUNNER].startswith("torchrun")


def test_gpus_without_a_launcher_get_torchruns_command_and_the_row_says_what_started_it() -> None:
    made = case("", 2, n_gpus="4")
    assert env(made)[RUNNER].startswith(
        "torchrun --nnodes={NNODES} --nproc_per_node=4 --node_rank={NODE_RANK}"
    )
    assert made.columns["launcher"] == "process"
    assert "MAD_LAUNCHER_TYPE" not in made.env
    assert env(case("", n_gpus="-1"))[RUNNER] == "torchrun --standalone --nproc_per_node=gpu"


@pytest.mark.parametrize("more", [{"n_gpus": "0"}, {"n_gpus": ""}, {"n_gpus": "8", "ranks_per_node": 8}])
def test_nothing_is_formed_without_gpus_or_where_the_user_forms_the_ranks(more: dict[str, Any]) -> None:
    assert RUNNER not in case("", **more).env


def test_deepspeeds_word_for_all_nodes_needs_no_file_and_no_ssh() -> None:
    words = env(case("deepspeed", 3, n_gpus="2"))[RUNNER].split()
    assert words[:4] == ["python3", "-u", "-m", "deepspeed.launcher.launch"]
    info = next(word for word in words if word.startswith("--world_info=")).removeprefix("--world_info=")
    assert json.loads(base64.urlsafe_b64decode(info)) == {f"node{rank}": [0, 1] for rank in range(3)}
    assert env(case("deepspeed", n_gpus="-1"))[RUNNER] == "deepspeed --num_gpus=-1"


def test_the_sizes_of_megatron_on_one_node_end_at_eight() -> None:
    assert env(case("megatron", n_gpus="16"))["TENSOR_MODEL_PARALLEL_SIZE"] == "8"
    assert env(case("megatron-lm", 2, n_gpus="16"))["TENSOR_MODEL_PARALLEL_SIZE"] == "16"
    assert env(case("megatron-lm", 2))["PIPELINE_MODEL_PARALLEL_SIZE"] == "2"


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("primus_pretrain/maxtext_llama", "MaxText"),
        ("primus_pretrain/megatron_llama", "megatron"),
        ("primus_pretrain/megatron_bridge_llama", "megatron_bridge"),
        ("primus_pretrain/moe_package_x", "moe_package"),
        ("primus_pretrain/other_x", None),
        ("megatron_llama", None),
    ],
)
def test_primus_backend_is_in_the_models_name(model: str, backend: str | None) -> None:
    assert env(case("primus", card={"name": model})).get("BACKEND") == backend


def test_launcher_variables_reach_the_container_on_every_target() -> None:
    on_slurm = {"slurm": SlurmOptions(partition="p"), "image": "x"}
    for launcher in ("torchtitan", "megatron-lm", "vllm", "sglang", "primus"):
        planned = case(launcher, **on_slurm)
        preset = {name for name, value in planned.env.items() if value.origin.startswith("preset ")}
        local, slurm = env(case(launcher, image="x")), env(planned)
        differ = {name for name in local.keys() | slurm if local.get(name) != slurm.get(name)}
        assert differ - preset == {"MAD_DEPLOYMENT_TYPE", "MAD_IN_SLURM_JOB"}


def test_several_nodes_give_slow_ones_time_and_name_the_interfaces() -> None:
    context = '{"multi_node_args": {"NNODES": 2, "NCCL_SOCKET_IFNAME": "ib0"}}'
    given = models({"distributed": {"launcher": "torchrun"}}, context=context, target="slurm", image="x")
    values = env(plan_for_tags(given).cases[0])
    assert values["TORCH_ELASTIC_RDZV_TIMEOUT"] == "3600"
    assert values["NCCL_SOCKET_IFNAME"] == "ib0"
    assert "TORCH_ELASTIC_RDZV_TIMEOUT" not in case("torchrun").env


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_survives_the_plan_on_disk(launcher: str) -> None:
    plan = plan_for_tags(models({"n_gpus": "8", "distributed": {"launcher": launcher}}, nodes=4))
    assert from_json(to_json(plan)) == plan
    assert plan.cases[0].columns["launcher"] == launcher


@pytest.mark.parametrize("said", ["none", "native", "docker", ""])
def test_words_that_name_no_launcher(said: str) -> None:
    assert case(said, n_gpus="0").columns["launcher"] == "process"


@pytest.mark.parametrize("said", ["megatorn", "torchrun ", "../x", "TORCHRUN", "a\u202eb", "x" * 4000])
def test_a_launcher_that_nobody_knows_is_refused_by_its_place(said: str) -> None:
    with pytest.raises(
        InputError, match=r"^cannot use models.json: .0. .m0.: distributed.launcher: no launcher"
    ):
        case(said)


def test_a_near_miss_is_told() -> None:
    with pytest.raises(InputError, match="did you mean 'megatron'"):
        case("megatorn")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_and_several_ranks_on_a_node_contradict(launcher: str) -> None:
    with pytest.raises(InputError, match=f"cannot use --ntasks-per-node 8 with {launcher} .*launcher"):
        case(launcher, 4, ranks_per_node=8)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_only_launchers_without_sizes_go_on_with_fewer_nodes(launcher: str) -> None:
    if launcher in ("torchrun", "primus"):
        assert case(launcher, 4, min_nodes=3)
        return
    with pytest.raises(InputError, match=f"cannot use --min-nodes 3 with {launcher}|no --min-nodes"):
        case(launcher, 4, min_nodes=3)


def test_the_later_word_on_nodes_holds_and_says_so_while_one_file_must_agree_with_itself() -> None:
    two = {"distributed": {"launcher": "torchrun", "nnodes": 2}}
    plan = plan_for_tags(models(two, nodes=4))
    assert plan.warnings == (
        "models.json: [0] (m0): distributed.nnodes asks for 2 nodes and gives way to 4 (--nodes)",
    )
    by_context = plan_for_tags(models(two, context='{"slurm": {"nodes": 3}}', image="x"))
    assert by_context.target.nodes == 3
    assert "gives way to 3 (--additional-context: slurm.nodes)" in " ".join(by_context.warnings)
    both = {"distributed": {"launcher": "torchrun", "nnodes": 2}, "slurm": {"nodes": 3}}
    with pytest.raises(InputError, match=r"distributed.nnodes asks for 2 nodes, and the run has 3"):
        plan_for_tags(models(both, target="slurm", image="x"))
    local = plan_for_tags(models(two))
    assert local.target.nodes == 1
    assert "asks for 2 nodes, and this machine is one; say -N 2" in local.warnings[0]


def test_more_processes_than_gpus_are_refused_and_fewer_are_the_users_choice() -> None:
    with pytest.raises(InputError, match=r"nproc_per_node asks for 9 processes on a node of 8 GPUs .*n_gpus"):
        case("torchrun", distributed={"nproc_per_node": 9})
    assert "--nproc_per_node=4" in env(case("torchrun", distributed={"nproc_per_node": 4}))[RUNNER]
    assert (
        "--nproc_per_node=4" in env(case("torchrun", n_gpus="0", distributed={"nproc_per_node": 4}))[RUNNER]
    )


@pytest.mark.parametrize("launcher", ["torchtitan", "megatron-lm", "vllm", "sglang"])
def test_sizes_need_the_number_of_gpus(launcher: str) -> None:
    with pytest.raises(InputError, match=r"all GPUs of a node are asked for .*distributed.nproc_per_node or"):
        case(launcher, n_gpus="-1")
    assert case(launcher, n_gpus="-1", context='{"docker_gpus": "0-3"}')


VLLM_FITS: list[tuple[int, dict[str, Any], dict[str, str]]] = [
    (1, {}, {"TENSOR": "8", "PIPELINE": "1", "BACKEND": "auto"}),
    (2, {}, {"TENSOR": "8", "PIPELINE": "1", "BACKEND": "none"}),
    (1, {"data_parallel_size": 4}, {"TENSOR": "2", "DATA": "4"}),
    (2, {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}, {"PIPELINE": "2", "BACKEND": "ray"}),
    (
        2,
        {"tensor_parallel_size": 1, "data_parallel_size": 16, "enable_expert_parallel": True},
        {"DATA": "16"},
    ),
    (1, {"tensor_parallel_size": 4}, {"TENSOR": "4"}),
]


@pytest.mark.parametrize(("nodes", "block", "wanted"), VLLM_FITS)
def test_sizes_of_vllm_that_fit(nodes: int, block: dict[str, Any], wanted: dict[str, str]) -> None:
    values = env(case("vllm", nodes, card={"vllm": block}))
    for name, value in wanted.items():
        word = "VLLM_DISTRIBUTED_BACKEND" if name == "BACKEND" else f"VLLM_{name}_PARALLEL_SIZE"
        assert values[word] == value


@pytest.mark.parametrize(
    ("launcher", "nodes", "block", "words"),
    [
        ("vllm", 1, {"tensor_parallel_size": 16}, r"tensor 16 \(.*\) needs 16 GPUs, and 1 node x 8"),
        ("vllm", 2, {"tensor_parallel_size": 8, "data_parallel_size": 3}, "needs 24 GPUs, and 2 nodes x 8"),
        (
            "vllm",
            4,
            {"tensor_parallel_size": 16},
            r"takes 16 GPUs, and 4 nodes x 8 .* at most the 8 of a node",
        ),
        ("vllm", 1, {"data_parallel_size": 9}, "data 9 .* needs more GPUs"),
        ("vllm", 2, {"pipeline_parallel_size": 2}, "say vllm.tensor_parallel_size"),
        (
            "vllm",
            1,
            {"tensor_parallel_size": 1, "enable_expert_parallel": True},
            "expert parallelism needs more",
        ),
        ("vllm", 1, {"distributed_executor_backend": "rya"}, "did you mean 'ray'"),
        ("sglang", 1, {"tp": 16}, "tensor 16 .* needs 16 GPUs"),
        ("sglang", 1, {"tp": 8, "dp": 2}, "needs 16 GPUs"),
        ("sglang", 1, {"tp": 8, "dp": 3, "enable_dp_attention": True}, "3 does not divide .* 8"),
        ("sglang-disagg", 4, {"tp": 16}, "needs more than the 8 GPUs of the smaller side"),
    ],
)
def test_sizes_that_do_not_fit(launcher: str, nodes: int, block: dict[str, Any], words: str) -> None:
    name = "vllm" if launcher == "vllm" else "sglang"
    with pytest.raises(InputError, match=words):
        case(launcher, nodes, card={name: block})


def test_data_parallel_attention_takes_no_gpus_of_its_own() -> None:
    values = env(case("sglang", card={"sglang": {"tp": 8, "dp": 8, "enable_dp_attention": True}}))
    assert (values["SGLANG_TENSOR_PARALLEL_SIZE"], values["SGLANG_DATA_PARALLEL_SIZE"]) == ("8", "8")


@pytest.mark.parametrize(
    ("nodes", "split", "wanted"),
    [
        (3, {}, ("1", "1")),
        (6, {}, ("2", "3")),
        (4, {"prefill_nodes": 2}, ("2", "1")),
        (4, {"decode_nodes": 1}, ("2", "1")),
        (6, {"prefill_nodes": 1, "decode_nodes": 4}, ("1", "4")),
    ],
)
def test_the_split_of_a_disaggregated_server(
    nodes: int, split: dict[str, int], wanted: tuple[str, str]
) -> None:
    values = env(case("sglang_disagg", nodes, distributed={"sglang_disagg": split}))
    assert (values["SGLANG_DISAGG_PREFILL_NODES"], values["SGLANG_DISAGG_DECODE_NODES"]) == wanted


@pytest.mark.parametrize(
    ("nodes", "split"),
    [
        (4, {"prefill_nodes": 2, "decode_nodes": 2}),
        (4, {"prefill_nodes": 3}),
        (4, {"decode_nodes": 9}),
        (5, {"prefill_nodes": 1, "decode_nodes": 1}),
    ],
)
def test_a_split_that_is_not_the_nodes_of_the_run_is_refused(nodes: int, split: dict[str, int]) -> None:
    with pytest.raises(InputError, match=rf"sglang_disagg.* 1 proxy .* are not the {nodes} nodes of the run"):
        case("sglang-disagg", nodes, distributed={"sglang_disagg": split})


def test_two_nodes_are_too_few_for_a_proxy_and_two_sides() -> None:
    with pytest.raises(InputError, match=r"it needs at least 3 nodes .* say -N 3 or more"):
        case("sglang-disagg", 2)


def test_slurm_multi_has_its_image_on_all_nodes_and_its_script_on_the_first() -> None:
    card = {
        "env_vars": {"DOCKER_IMAGE_NAME": "card:1", "xP": "7"},
        "distributed": {"launcher": "slurm-multi", "vllm_disagg": {"prefill_nodes": 1, "decode_nodes": 2}},
    }
    plan = plan_for_tags(models(card, nodes=4, slurm=SlurmOptions(partition="p")))
    [made] = plan.cases
    assert (made.container.runtime, main_of(made).per, made.driven) == (Runtime.PROCESS, "first", True)
    assert [image.reference for image in plan.images] == [made.columns["docker_image"]] == ["card:1"]
    values = env(made)
    assert (values["xP"], values["yD"], values["DOCKER_IMAGE_NAME"]) == ("7", "2", "card:1")
    assert not plan.refusals
    with pytest.raises(InputError, match="cannot use --runtime docker with slurm_multi"):
        plan_for_tags(models(card, runtime="docker"))


def test_ray_does_not_get_two_names_for_its_devices() -> None:
    both = '{"docker_env_vars": {"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "0"}}'
    with pytest.raises(
        InputError, match=r"docker_env_vars.CUDA_VISIBLE_DEVICES with vllm: HIP_VISIBLE_DEVICES"
    ):
        case("vllm", context=both)
    hip = env(case("vllm", context='{"docker_env_vars": {"HIP_VISIBLE_DEVICES": "0"}}'))
    assert hip["RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"] == ""
    assert "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES" not in case("vllm").env
    assert case("torchrun", context=both)


EVIL = ["{NODE_RANK}", "$(touch /x)", "a b'c\"d", "\u202e", "--x=\\", "é" * 100]


@pytest.mark.parametrize("evil", EVIL)
def test_odd_text_in_any_field_is_kept_as_it_is_or_refused_by_its_place(evil: str) -> None:
    context = json.dumps({"multi_node_args": {"NCCL_SOCKET_IFNAME": evil, "GLOO_SOCKET_IFNAME": evil}})
    blocks = {"vllm": {"env": {"X": evil}, "tensor_parallel_size": 8}}
    values = case("vllm", context=context, card=blocks)
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "X"):
        assert (values.env[name].value, values.env[name].template) == (evil, False)
    unknown = plan_for_tags(models({"distributed": {"launcher": "vllm"}, "n_gpus": "8", "vllm": {evil: 1}}))
    assert any(f"vllm.{evil}: it is not a known key" in words for words in unknown.warnings)
    for block in ({"env": {evil: "1"}}, {"distributed_executor_backend": evil}):
        with pytest.raises(InputError, match=r"^cannot use models.json: .0. .m0.: vllm"):
            case("vllm", card={"vllm": block})


def test_a_placeholder_in_a_blocks_variables_is_treated_as_in_all_others() -> None:
    values = env(case("vllm", card={"vllm": {"env": {"A": "${HERE}"}}}, environ={"HERE": "x"}))
    assert values["A"] == "x"
    with pytest.raises(InputError, match=r"vllm.env.A: A holds the placeholder"):
        case("vllm", card={"vllm": {"env": {"A": "x${HERE}"}}}, environ={"HERE": "x"})


def test_what_the_command_line_says_of_the_network_goes_over_card_and_manifest() -> None:
    card = {
        "distributed": {"launcher": "torchrun"},
        "env_vars": {"NCCL_SOCKET_IFNAME": "eth0"},
        "n_gpus": "8",
    }
    context = '{"slurm": {"network_interface": "ib0"}}'
    values = env(plan_for_tags(models(card, context=context, image="x")).cases[0])
    assert (values["NCCL_SOCKET_IFNAME"], values["GLOO_SOCKET_IFNAME"]) == ("ib0", "ib0")
    below = [
        Layer("m.json", {"env_vars": {"NCCL_SOCKET_IFNAME": "eth0"}, "docker_env_vars": {"MASTER_PORT": "1"}})
    ]
    said = load_context(
        '{"slurm": {"network_interface": "ib0"}, "distributed": {"port": 31000}}', below=below
    )
    plan = plan_for_tags(replace(models(card, image="x"), context=said))
    assert env(plan.cases[0])["NCCL_SOCKET_IFNAME"] == "ib0"
    assert plan.cases[0].master_port == 31000
    assert "MASTER_PORT" not in plan.cases[0].env


@pytest.mark.parametrize(
    ("below", "above", "nccl", "gloo"),
    [
        ({"env_vars": {"GLOO_SOCKET_IFNAME": "g"}}, {"env_vars": {"NCCL_SOCKET_IFNAME": "n"}}, "n", "g"),
        (
            {"docker_env_vars": {"NCCL_SOCKET_IFNAME": "old", "GLOO_SOCKET_IFNAME": "g"}},
            {"env_vars": {"NCCL_SOCKET_IFNAME": "n"}},
            *("n", "g"),
        ),
        ({"slurm": {"network_interface": "i"}}, {"docker_env_vars": {"GLOO_SOCKET_IFNAME": "g"}}, "i", "g"),
        (
            {"env_vars": {"NCCL_SOCKET_IFNAME": "n"}, "docker_env_vars": {"GLOO_SOCKET_IFNAME": "g"}},
            {"slurm": {"network_interface": "i"}},
            *("i", "i"),
        ),
        (
            {"multi_node_args": {"NCCL_SOCKET_IFNAME": "n", "GLOO_SOCKET_IFNAME": "g"}},
            {"slurm": {"network_interface": "i"}},
            *("i", "i"),
        ),
        (
            {"env_vars": {"NCCL_SOCKET_IFNAME": "n", "GLOO_SOCKET_IFNAME": "g"}},
            {"multi_node_args": {"NCCL_SOCKET_IFNAME": "m"}},
            *("m", "g"),
        ),
    ],
)
def test_a_higher_layer_says_the_interfaces_that_it_names_and_no_other(
    below: dict[str, Any], above: dict[str, Any], nccl: str, gloo: str
) -> None:
    said = load_context(json.dumps(above), below=[Layer("m.json", below)])
    given = models({"distributed": {"launcher": "torchrun"}, "n_gpus": "8"}, image="x", target="slurm")
    values = env(plan_for_tags(replace(given, context=said)).cases[0])
    assert (values["NCCL_SOCKET_IFNAME"], values["GLOO_SOCKET_IFNAME"]) == (nccl, gloo)


def test_placeholders_of_cards_are_refused_where_nobody_looks_them_up() -> None:
    for card in (
        {"distributed": {"launcher": "primus", "primus": {"cli_extra": "${HF_TOKEN}"}}},
        {"slurm": {"partition": "${PART}"}},
        {"distributed": {"launcher": "torchrun", "backend": "x${A}"}},
    ):
        with pytest.raises(InputError, match=r"is not looked up here|holds the placeholder"):
            plan_for_tags(models({**card, "n_gpus": "1"}, target="slurm", image="x"))


def test_a_cards_slurm_block_is_read_as_a_contexts() -> None:
    card = {
        "distributed": {"launcher": "torchrun"},
        "slurm": {
            "gpus_per_node": 8,
            "nodelist": ["n1", "n2"],
            "time": None,
            "exclusive": "true",
            "partiton": "x",
        },
    }
    plan = plan_for_tags(models(card, target="slurm", image="x"))
    slurm = plan.target.slurm
    assert (slurm.nodelist, slurm.time, slurm.exclusive, slurm.gpus_per_node) == ("n1,n2", "", True, "8")
    assert "--nproc_per_node=8" in env(plan.cases[0])[RUNNER]
    assert any("slurm.partiton is not a known key" in words for words in plan.warnings)


def test_models_that_say_nothing_of_nodes_are_told_when_another_decides() -> None:
    plan = plan_for_tags(models({"nnodes": 2}, {}, {}, target="slurm", image="x"))
    assert any(
        "asks for 2 nodes, and m1, m2 run on as many; say -N COUNT" in words for words in plan.warnings
    )


def test_a_shared_job_that_asks_for_no_gpus_is_told() -> None:
    shared = SlurmOptions(partition="p", exclusive=False)
    plan = plan_for_tags(models({"n_gpus": "8"}, slurm=shared, image="x"))
    assert any(
        "the job asks for no GPUs" in words and "--gpus-per-node 8" in words for words in plan.warnings
    )
    asks = SlurmOptions(partition="p", exclusive=False, gres="gpu:8")
    assert not plan_for_tags(models({"n_gpus": "8"}, slurm=asks, image="x")).warnings


def test_what_no_message_can_carry_is_refused_when_it_is_planned() -> None:
    card = {"n_gpus": "8", "distributed": {"launcher": "deepspeed"}}
    with pytest.raises(InputError, match=r"launcher deepspeed: .* is longer than 131072 characters"):
        plan_for_tags(models(card, nodes=5000, target="slurm", image="x"))


def test_a_launcher_that_is_off_forms_nothing() -> None:
    card = {"n_gpus": "8", "distributed": {"launcher": "vllm", "enabled": "false"}}
    assert RUNNER not in plan_for_tags(models(card)).cases[0].env


def test_no_column_of_a_row_holds_a_secret() -> None:
    plan = plan_for_tags(
        models({"additional_docker_run_options": "-e HF_TOKEN=canary --ipc host"}, image="x")
    )
    assert plan.cases[0].columns["additional_docker_run_options"] == "-e HF_TOKEN --ipc host"
    assert b"canary" not in to_json(plan)


def test_words_of_another_tool_in_a_launch_block_are_a_warning_where_tools_write() -> None:
    below = [Layer("m.json", {"vllm": {"gpu_memory_utilization": 0.9}})]
    card = {"n_gpus": "8", "distributed": {"launcher": "vllm", "foo": 1}}
    plan = plan_for_tags(replace(models(card), context=load_context(below=below)))
    assert any(
        "m.json: vllm.gpu_memory_utilization: it is not a known key" in words for words in plan.warnings
    )
    assert any("distributed.foo: it is not a known key" in words for words in plan.warnings)
    said = '{"vllm": {"gpu_memory_utilization": 0.9}}'
    with pytest.raises(InputError, match="gpu_memory_utilization: it is not a known key"):
        plan_for_tags(models(card, context=said))
    plan_for_tags(replace(models(card), context=load_context(said, unknown_keys="warn")))


def test_the_interface_of_the_cluster_is_for_the_cluster() -> None:
    context = '{"slurm": {"network_interface": "ib0"}, "multi_node_args": {"GLOO_SOCKET_IFNAME": "eth1"}}'
    values = env(case("torchrun", context=context, image="x"))
    assert (values["NCCL_SOCKET_IFNAME"], values["GLOO_SOCKET_IFNAME"]) == ("ib0", "eth1")
    assert "NCCL_SOCKET_IFNAME" not in env(case("torchrun", context=context, image="x", target="local"))
    by_card = case("", n_gpus="0", card={"slurm": {"network_interface": "hsn0"}}, image="x", target="slurm")
    assert by_card.env["GLOO_SOCKET_IFNAME"].origin == "models.json: [0] (m0): slurm.network_interface"


def test_a_block_for_another_launcher_is_told() -> None:
    card = {"n_gpus": "8", "distributed": {"launcher": "torchrun"}, "vllm": {"tensor_parallel_size": 4}}
    [warning] = plan_for_tags(models(card)).warnings
    assert warning == (
        "models.json: [0] (m0): vllm.tensor_parallel_size is not used: it is for vllm, "
        "and the launcher is torchrun"
    )


def test_a_number_of_processes_alone_is_enough_for_torchruns_command() -> None:
    assert env(case("", n_gpus="0", distributed={"nproc_per_node": 2}))[RUNNER].endswith("--nproc_per_node=2")
    with pytest.raises(InputError, match=r"cannot run m0 with torchrun: .*nproc_per_node asks for 9"):
        case("", distributed={"nproc_per_node": 9})


def test_a_command_has_no_launcher_and_is_told_so() -> None:
    plan = plan_for_command(command(context='{"distributed": {"launcher": "torchrun"}}'))
    assert plan.warnings[-1].endswith(
        "distributed.launcher is not used: it forms the ranks of models, not of a command"
    )
    assert plan.cases[0].columns["launcher"] == "process"


@given(
    st.sampled_from(LAUNCHERS),
    st.integers(1, 6),
    st.integers(-1, 9),
    st.dictionaries(
        st.sampled_from(["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"]),
        st.integers(1, 64),
    ),
)
def test_sizes_never_take_more_gpus_than_there_are(
    launcher: str, nodes: int, n_gpus: int, sizes: dict[str, int]
) -> None:
    try:
        values = env(case(launcher, nodes, str(n_gpus), card={"vllm": sizes, "sglang": sizes}))
    except InputError as error:
        assert str(error).startswith("cannot run m0 with ")
        return
    assert all(
        "{" not in value or name in (RUNNER, "MAD_NODE_RANK", "MAD_COLLECT_METRICS") or value[0] == "{"
        for name, value in values.items()
    )
    if launcher in ("vllm", "sglang"):
        stem = launcher.upper()
        taken = [
            int(values.get(f"{stem}_{name}_PARALLEL_SIZE", 1)) for name in ("TENSOR", "PIPELINE", "DATA")
        ]
        assert 1 <= taken[0] * taken[1] * taken[2] <= max(n_gpus, 1) * nodes
