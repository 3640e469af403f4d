"""Plans for commands and for models: what becomes of the inputs, and where each value is from."""

from __future__ import annotations

import fnmatch
import json
import shlex
from typing import Any

import pytest
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import Share, SlurmOptions
from phalanx.controller.workflow.errors import InputError
from phalanx.protocol.messages import Runtime

from .making import command, main_of, models


def test_a_command_is_one_case_with_one_step_and_no_value_is_required() -> None:
    plan = plan_for_command(command("echo", "a b; $(rm)", nodes=3, ranks_per_node=2))
    [case] = plan.cases
    assert case.steps[0].argv == ("echo", "a b; $(rm)")
    assert (case.steps[0].deadline_s, case.ranks_per_node, case.name) == (0.0, 2, "echo")
    assert (plan.target.kind, plan.target.nodes, plan.output_csv, plan.exit_policy) == ("local", 3, "", "max")
    assert case.container.runtime is Runtime.PROCESS
    assert not case.result.require_performance


def test_a_model_runs_its_script_with_its_arguments_split_and_not_through_a_shell() -> None:
    plan = plan_for_tags(models({"args": "--name 'two words' $(touch X) ; x"}))
    [case] = plan.cases
    assert main_of(case).argv == ("bash", "run.sh", "--name", "two words", "$(touch", "X)", ";", "x")
    assert (case.workspace, case.container.workdir) == (
        (Share("/proj/scripts/m", "run_directory"),),
        "run_directory",
    )
    assert plan.output_csv == "/proj/perf.csv"
    assert plan.exit_policy == "workflow"


def test_arguments_of_the_context_replace_the_cards_which_the_row_keeps() -> None:
    plan = plan_for_tags(models({"args": "--a 1"}, context='{"model_args": "--b 2"}'))
    assert main_of(plan.cases[0]).argv[2:] == ("--b", "2")
    assert plan.cases[0].columns["args"] == "--a 1"


def test_an_encapsulating_command_stands_in_front_and_may_not_need_a_shell() -> None:
    plan = plan_for_tags(models(context='{"encapsulate_script": "nice -n 5"}'))
    assert main_of(plan.cases[0]).argv == ("nice", "-n", "5", "bash", "run.sh")
    with pytest.raises(InputError, match="&& needs a shell"):
        plan_for_tags(models(context='{"encapsulate_script": "true && nice"}'))


@pytest.mark.parametrize(
    ("card", "timeout", "seconds", "origin"),
    [
        ({}, "", 7200.0, "default"),
        ({}, "-1", 7200.0, "default"),
        ({"timeout": 60}, "", 60.0, "models.json: [0] (m0): timeout"),
        ({"timeout": 60}, "2h", 7200.0, "--timeout"),
        ({"timeout": 60}, "0", 0.0, "--timeout"),
        ({"timeout": -1}, "", 7200.0, "default"),
    ],
)
def test_the_deadline_of_a_model(card: dict[str, int], timeout: str, seconds: float, origin: str) -> None:
    plan = plan_for_tags(models(card, timeout=timeout))
    assert main_of(plan.cases[0]).deadline_s == seconds
    assert plan.origins["cases.m0.timeout"] == origin


@pytest.mark.parametrize("timeout", ["-2", "soon", "5x", "1 2", "99999999h"])
def test_a_timeout_that_is_none_is_refused(timeout: str) -> None:
    with pytest.raises(InputError, match="cannot use --timeout"):
        plan_for_tags(models(timeout=timeout))


@pytest.mark.parametrize("seconds", [10**9, 10**18, int("9" * 400)])
def test_a_timeout_of_a_card_has_the_limit_of_the_option(seconds: int) -> None:
    with pytest.raises(
        InputError, match=r"cannot use models.json: \[0\] \(m0\): timeout: it is more than ten"
    ):
        plan_for_tags(models({"timeout": seconds}))
    assert plan_for_tags(models({"timeout": seconds}, timeout="60")).cases, "the command line goes over it"


def test_the_number_of_nodes_comes_from_the_last_that_says_one() -> None:
    card = {"nnodes": "2"}
    context = '{"slurm": {"nodes": 3}}'
    image = {"image": "x"}
    assert plan_for_tags(models()).origins["target.nodes"] == "default"
    assert plan_for_tags(models(card)).target.nodes == 1, "several agents on one machine have to be asked for"
    assert plan_for_tags(models(card, target="slurm", **image)).target.nodes == 2
    more = {"context": '{"distributed": {"nnodes": 5}}', "target": "slurm"}
    assert plan_for_tags(models(card, **more, **image)).target.nodes == 5
    by_context = plan_for_tags(models(card, context=context, **image))
    assert by_context.target.nodes == 3
    assert by_context.origins["target.nodes"] == "--additional-context: slurm.nodes"
    assert plan_for_tags(models(card, context=context, nodes=4, **image)).target.nodes == 4


def test_models_that_ask_for_different_numbers_of_nodes_need_a_word_from_the_user() -> None:
    two = ({"nnodes": 2}, {"distributed": {"nnodes": 4}})
    with pytest.raises(InputError, match=r"m0 for 2, m1 for 4\); say -N COUNT"):
        plan_for_tags(models(*two))
    assert plan_for_tags(models(*two, nodes=3)).target.nodes == 3


def test_slurm_options_are_layered_card_context_command_line() -> None:
    card = {"slurm": {"partition": "card", "qos": "card", "time": 30, "output_dir": "x"}}
    context = '{"slurm": {"partition": "ctx", "account": "ctx"}}'
    plan = plan_for_tags(models(card, context=context, image="i", slurm=SlurmOptions(partition="cli")))
    options = plan.target.slurm
    assert (options.partition, options.account, options.qos, options.time) == ("cli", "ctx", "card", "30")
    assert plan.origins["target.slurm.partition"] == "--partition"
    assert plan.origins["target.slurm.qos"] == "models.json: [0] (m0): slurm.qos"


def test_presets_of_models_on_slurm_lie_below_everything_that_is_said() -> None:
    card = {"env_vars": {"OMP_NUM_THREADS": "1"}, "slurm": {"nodes": 2}}
    context = '{"slurm": {}, "env_vars": {"NCCL_DEBUG": "INFO"}}'
    plan = plan_for_tags(models(card, context=context, image="i", env=("GPU_MAX_HW_QUEUES=4",)))
    env = plan.cases[0].env
    assert (env["OMP_NUM_THREADS"].value, env["NCCL_DEBUG"].value) == ("1", "INFO")
    assert env["GPU_MAX_HW_QUEUES"].value == "4"
    assert env["NCCL_DEBUG_SUBSYS"].origin == "preset slurm/multi-node: env_vars.NCCL_DEBUG_SUBSYS"
    assert plan.target.slurm.exclusive is True
    assert plan.origins["target.slurm.exclusive"] == "preset slurm/defaults: slurm.exclusive"
    assert "whole nodes   (preset slurm/defaults: slurm.exclusive)" in describe(plan)


@pytest.mark.parametrize("source", ["card", "context", "command line"])
def test_a_node_may_be_shared_when_anyone_says_so(source: str) -> None:
    block = {"exclusive": False}
    plan = plan_for_tags(
        models(
            {"slurm": block if source == "card" else {}},
            context=json.dumps({"slurm": block if source == "context" else {}}),
            image="i",
            slurm=SlurmOptions(exclusive=False if source == "command line" else None),
        )
    )
    assert plan.target.slurm.exclusive is False


def test_presets_are_for_models_on_slurm_and_for_allocations_that_are_asked_for() -> None:
    assert "OMP_NUM_THREADS" not in plan_for_tags(models()).cases[0].env
    by_command = plan_for_command(command(context='{"slurm": {"nodes": 2}}'))
    assert by_command.target.slurm.exclusive is None
    assert by_command.cases[0].env == {}
    inside = plan_for_tags(models(image="i", environ={"SLURM_JOB_ID": "7"}))
    assert (inside.target.slurm.exclusive, inside.warnings) == (None, ())
    assert "OMP_NUM_THREADS" in inside.cases[0].env


def test_what_only_rocm_reads_is_left_out_for_another_vendor() -> None:
    context = '{"slurm": {"nodes": 2}, "gpu_vendor": "NVIDIA"}'
    env = plan_for_tags(models(context=context, image="i")).cases[0].env
    assert "NCCL_DEBUG" in env
    assert "HSA_FORCE_FINE_GRAIN_PCIE" not in env


@pytest.mark.parametrize(
    ("context", "more", "kind", "origin"),
    [
        ('{"deploy": "slurm"}', {}, "slurm", "--additional-context: deploy"),
        ('{"deploy": "docker", "slurm": {}}', {}, "local", "--additional-context: deploy"),
        ('{"deploy": "local"}', {"environ": {"SLURM_JOB_ID": "7"}}, "local", "--additional-context: deploy"),
        ('{"deploy": "local"}', {"target": "slurm"}, "slurm", "--target"),
        ('{"deploy": "local"}', {"slurm": SlurmOptions(qos="q")}, "slurm", "--qos"),
        ('{"deploy": "slurm"}', {"target": "local"}, "local", "--target"),
        (
            '{"deployment_config": {"slurm": {"nodes": 2}}}',
            {},
            "slurm",
            "--additional-context: deployment_config: slurm",
        ),
    ],
)
def test_the_context_may_name_the_target(context: str, more: dict[str, Any], kind: str, origin: str) -> None:
    plan = plan_for_command(command(context=context, **more))
    assert (plan.target.kind, plan.origins["target.kind"]) == (kind, origin)


def test_gpus_on_the_command_line_go_over_those_of_the_context() -> None:
    def known(context: str, asked: str = "") -> str:
        slurm = SlurmOptions(gpus_per_node=asked)
        return (
            plan_for_tags(models({"n_gpus": "1"}, context=context, image="i", slurm=slurm))
            .cases[0]
            .env["GPUS_PER_NODE"]
            .value
        )

    assert known("") == "1"
    assert known('{"slurm": {"gpus_per_node": 2}}') == "2"
    assert known('{"slurm": {"gpus_per_node": 2}, "gpu_count": 4}') == "4"
    assert known('{"slurm": {"gpus_per_node": 2}, "gpu_count": 4}', "8") == "8"


def test_placeholders_in_arguments_and_images_are_resolved_or_refused() -> None:
    environ = {"IMG": "site/a:1", "HF_TOKEN": "hf_1234567"}
    context = '{"docker_env_vars": {"MAD_CONTAINER_IMAGE": "${IMG}"}}'
    assert plan_for_tags(models(context=context, environ=environ)).cases[0].container.image == "site/a:1"
    by_card = models({"env_vars": {"DOCKER_IMAGE_NAME": "${IMG}"}}, environ=environ)
    assert plan_for_tags(by_card).cases[0].container.image == "site/a:1"
    with pytest.raises(InputError, match=r"args: it holds the placeholder \$\{HF_TOKEN\}"):
        plan_for_tags(models({"args": "--token ${HF_TOKEN}"}, environ=environ))
    with pytest.raises(InputError, match="is a secret"):
        plan_for_tags(models({"env_vars": {"DOCKER_IMAGE_NAME": "${HF_TOKEN}"}}, environ=environ))


def test_inside_an_allocation_that_one_is_used_with_all_its_nodes() -> None:
    environ = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "4"}
    plan = plan_for_command(command(environ=environ))
    assert (plan.target.kind, plan.target.nodes, plan.target.slurm.job_id) == ("slurm", 4, "77")
    assert plan_for_command(command(environ=environ, target="local")).target.kind == "local"
    with pytest.raises(InputError, match=r"cannot use 5 nodes .*: allocation 77 has 4"):
        plan_for_command(command(environ=environ, nodes=5))
    asked = plan_for_command(command(environ=environ, slurm=SlurmOptions(partition="p")))
    assert asked.warnings == ("allocation 77 is used as it is: partition only matter for a new one",)


def test_slurms_options_on_a_local_target_are_refused() -> None:
    with pytest.raises(InputError, match="cannot use --partition with --target local"):
        plan_for_command(command(target="local", slurm=SlurmOptions(partition="p")))


def test_fewer_nodes_than_the_fewest_are_refused() -> None:
    with pytest.raises(InputError, match="--min-nodes 3: the run asks for 2"):
        plan_for_command(command(nodes=2, min_nodes=3))


def test_the_image_decides_the_runtime_and_its_origin_is_kept() -> None:
    by_option = plan_for_tags(models({"env_vars": {"DOCKER_IMAGE_NAME": "card:1"}}, image="cli:1"))
    assert by_option.cases[0].container.image == "cli:1"
    by_context = plan_for_tags(
        models({"env_vars": {"DOCKER_IMAGE_NAME": "card:1"}}, context='{"MAD_CONTAINER_IMAGE": "ctx:1"}')
    )
    assert [image.reference for image in by_context.images] == ["ctx:1"]
    by_card = plan_for_tags(models({"env_vars": {"DOCKER_IMAGE_NAME": "card:1"}}))
    assert by_card.cases[0].container.image == "card:1"
    assert "DOCKER_IMAGE_NAME" not in by_card.cases[0].env
    assert by_card.origins["cases.m0.runtime"].endswith("env_vars.DOCKER_IMAGE_NAME")


def test_a_model_on_slurm_needs_an_image_or_the_users_word() -> None:
    context = '{"slurm": {}}'
    with pytest.raises(InputError, match="no image is named; say --image NAME"):
        plan_for_tags(models(context=context))
    assert plan_for_tags(models(context=context, runtime="process")).cases[0].container.image == ""
    assert plan_for_command(command(context=context)).target.kind == "slurm"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"runtime": "docker"}, "no image is named"),
        ({"runtime": "podman"}, "expected process or docker"),
        ({"runtime": "process", "image": "x"}, "a process has no image"),
        ({"image": "-x"}, "is no image name"),
        ({"mounts": ("/a:/b",)}, "cannot use -v without a container"),
        ({"memory": "1g"}, "cannot use --memory without a container"),
        ({"image_archive": "x.tar"}, "cannot use --image-archive"),
        ({"ranks_per_node": 0}, "expected 1 to 1024"),
        ({"nodes": 0}, "expected 1 to 100000 nodes"),
        ({"target": "slrm"}, "did you mean 'slurm'"),
        ({"join_timeout": "0"}, "at least 1s"),
        ({"exit_policy": "last"}, "expected first, max or any"),
        ({"command": ("a\0b",)}, "an empty name or a NUL"),
        ({"command": ("x",) * 5000}, "too long"),
        ({"run_id": "../x"}, "cannot use the run id"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_touched(more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_for_command(command(**more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"args": "'open"}, "args: no closing quotation"),
        ({"multiple_results": "../x.csv"}, "leaves the model's folder"),
        ({"n_gpus": "many"}, "n_gpus: expected a whole number"),
        ({"slurm": {"partition": ["x"]}}, None),
    ],
)
def test_a_card_that_cannot_be_run_is_refused_by_its_field(
    card: dict[str, object], words: str | None
) -> None:
    context = '{"slurm": {}}' if words is None else ""
    with pytest.raises(InputError, match=words or r"slurm.partition: found a list"):
        plan_for_tags(models(card, context=context, image="x"))


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ("--data $HOME/x", "$HOME"),
        ('--data "$HOME/x"', "$HOME"),
        ("--n $(nproc)", "$("),
        ("--n `nproc`", "`"),
        ("*.json", "*"),
        ("'a' b?", "?"),
        ("--steps 1; reboot", ";"),
        ("a | tee b", "|"),
        ("a > b", ">"),
        ("a && b", "&"),
        (r"\'$A\'", "$A"),
        ('"it\'s" $A', "$A"),
        ('--data \'$HOME/*\' "a;b" "*" \\$HOME a\\*b', None),
        ('"\\$HOME"', None),
        ("--price 5$ --rate=1e-3 [1,2] {a}", None),
    ],
)
def test_what_a_shell_would_act_on_in_arguments_is_named_and_reaches_the_script_as_written(
    args: str, found: str | None
) -> None:
    for more, where in (({}, "args: "), ({"model_args": args}, ": model_args: ")):
        card = {"args": args} if not more else {}
        plan = plan_for_tags(models(card, context=json.dumps(more) if more else ""))
        said = [words.partition(" reaches the script as it")[0] for words in plan.warnings]
        assert [words.partition(where)[2] for words in said] == ([] if found is None else [found])
        assert main_of(plan.cases[0]).argv[2:] == tuple(shlex.split(args))


def in_image(name: str) -> dict[str, Any]:
    return {"env_vars": {"DOCKER_IMAGE_NAME": name}}


def test_models_may_have_images_of_their_own_each_listed_once_in_the_order_of_use() -> None:
    plan = plan_for_tags(models(*map(in_image, "bab"), bulk_rate="1m"))
    assert [image.reference for image in plan.images] == ["b", "a"]
    assert plan.travel.rate_bytes_s == 2**20
    assert [case.container.image for case in plan.cases] == ["b", "a", "b"]
    text = describe(plan)
    assert "b  from the engine here or of a node, to every node that lacks it   (for m0, m2)" in text
    assert "to every node that lacks it, when m1 is due   (for m1)" in text
    assert "? image b: not looked for" in text
    assert "? image a: not looked for" in text


def test_one_image_for_all_overrides_those_of_the_cards() -> None:
    plan = plan_for_tags(models(*map(in_image, "ab"), image="c", image_archive="c.tar"))
    assert [(image.reference, image.archive) for image in plan.images] == [("c", "/proj/c.tar")]


def test_models_with_and_without_an_image_are_refused_together() -> None:
    with pytest.raises(
        InputError, match=r"m0 needs a, m1 needs none; run them one by one, or .* --image NAME"
    ):
        plan_for_tags(models(in_image("a"), {}))


def test_an_archive_belongs_to_one_image() -> None:
    with pytest.raises(
        InputError, match=r"more than one image: m0 needs a, m1 needs b; .* MAD_DOCKER_BUILDS"
    ):
        plan_for_tags(models(*map(in_image, "ab"), image_archive="a.tar"))


def test_scripts_get_the_mad_variables_that_make_sense() -> None:
    context = '{"gpu_vendor": "AMD", "guest_os": "UBUNTU", "docker_gpus": "0-3"}'
    card = {"name": "scope/m", "multiple_results": "r.csv", "n_gpus": "-1"}
    plan = plan_for_tags(models(card, context=context, image="x", nodes=2, environ={"BUILD_NUMBER": "9"}))
    [case] = plan.cases
    env = {name: value.value for name, value in case.env.items()}
    assert env == {
        "MAD_MODEL_NAME": "scope/m",
        "MAD_OUTPUT_CSV": "r.csv",
        "JENKINS_BUILD_NUMBER": "9",
        "MAD_DEPLOYMENT_TYPE": "local",
        "MAD_NODE_RANK": "{NODE_RANK}",
        "MAD_COLLECT_METRICS": "{ON_FIRST_NODE}",
        "MAD_MULTI_NODE_RUNNER": "torchrun --nnodes={NNODES} --nproc_per_node=4 --node_rank={NODE_RANK} "
        "--master_addr={MASTER_ADDR} --master_port={MASTER_PORT}",
        "MAD_TOTAL_NODES": "{NNODES}",
        "MAD_GPU_VENDOR": "AMD",
        "MAD_SYSTEM_GPU_ARCHITECTURE": "{SYSTEM_GPU_ARCHITECTURE}",
        "MAD_SYSTEM_GPU_PRODUCT_NAME": "{SYSTEM_GPU_PRODUCT_NAME}",
        "MAD_SYSTEM_NGPUS": "{SYSTEM_NGPUS}",
        "MAD_SYSTEM_HIP_VERSION": "{SYSTEM_HIP_VERSION}",
        "MAD_GUEST_OS": "UBUNTU",
        "MAD_RUNTIME_NGPUS": "4",
        "GPUS_PER_NODE": "4",
    }
    assert (case.name, case.columns["model"], case.columns["n_gpus"]) == ("scope_m", "scope/m", "8")
    assert "r.csv" in case.collect
    odd = plan_for_tags(models({"multiple_results": "out/perf[fp16].csv"})).cases[0]
    assert fnmatch.filter(["out/perf[fp16].csv", "out/perff.csv"], odd.collect[0]) == ["out/perf[fp16].csv"]
    without = plan_for_tags(models())
    assert "MAD_OUTPUT_CSV" not in without.cases[0].env


def test_two_models_of_like_names_are_two_cases() -> None:
    plan = plan_for_tags(models({"name": "a/b"}, {"name": "a_b"}, {"name": "a/b", "args": "x"}))
    assert [case.name for case in plan.cases] == ["a_b", "a_b-2", "a_b-3"]


def test_the_launcher_of_a_row_is_what_formed_the_ranks() -> None:
    def column(plan_inputs: object) -> str:
        return plan_for_tags(plan_inputs).cases[0].columns["launcher"]  # type: ignore[arg-type]

    assert column(models()) == "process"
    assert column(models(image="x")) == "docker"
    assert column(models({"distributed": {"launcher": "slurm-multi"}})) == "slurm_multi"
    context = '{"distributed": {"launcher": "torchrun"}}'
    assert column(models({"distributed": {"launcher": "vllm"}}, context=context)) == "torchrun"
    assert column(models({"distributed": {"launcher": "megatron"}})) == "megatron-lm"
    assert column(models({"distributed": {"launcher": "none"}})) == "process"
    assert column(models(environ={"MAD_LAUNCHER": "deepspeed"})) == "deepspeed"
    assert column(models(environ={"MAD_LAUNCHER": "mine"})) == "process"


def test_the_meeting_port_may_be_said_in_four_places() -> None:
    assert plan_for_command(command()).cases[0].master_port == 0
    assert plan_for_tags(models({"distributed": {"port": 1234}})).cases[0].master_port == 1234
    assert plan_for_command(command(context='{"distributed": {"port": 29501}}')).cases[0].master_port == 29501
    assert plan_for_command(command(env=("MASTER_PORT=4000",))).cases[0].master_port == 4000
    with pytest.raises(InputError, match="MASTER_PORT: 'x' is no port"):
        plan_for_command(command(env=("MASTER_PORT=x",)))


def test_the_same_inputs_give_the_same_plan() -> None:
    given = models({"args": "a"}, {"args": "b"}, context='{"slurm": {"nodes": 2}}', image="x")
    assert plan_for_tags(given) == plan_for_tags(given)


NAMED = SlurmOptions(nodelist="n[1-4]")


def test_a_list_of_nodes_is_how_many_are_asked_for_when_nobody_says_a_number() -> None:
    plan = plan_for_command(command(slurm=NAMED))
    assert (plan.target.nodes, plan.origins["target.nodes"]) == (4, "--nodelist")
    by_context = plan_for_command(command(context='{"slurm": {"nodelist": ["n1", "n2"]}}'))
    assert by_context.target.nodes == 2
    assert by_context.origins["target.nodes"] == "--additional-context: slurm.nodelist"
    by_card = plan_for_tags(models({"slurm": {"nodes": 6}}, slurm=NAMED, image="i"))
    assert by_card.target.nodes == 6


def test_a_list_of_nodes_may_be_shorter_than_the_number_and_not_longer() -> None:
    assert plan_for_command(command(slurm=NAMED, nodes=6)).target.nodes == 6, "Slurm adds what is missing"
    with pytest.raises(InputError, match="cannot use --nodelist: it names 4 nodes, and --nodes asks for 3"):
        plan_for_command(command(slurm=NAMED, nodes=3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SlurmOptions(nodelist="n[1-"), "cannot use --nodelist: cannot read node set"),
        (SlurmOptions(exclude="n[3-1]"), "cannot use --exclude: cannot read node set"),
        (SlurmOptions(nodelist="n1!n1"), "names no node"),
    ],
)
def test_a_list_of_nodes_that_cannot_be_read_is_refused(options: SlurmOptions, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_for_command(command(slurm=options, nodes=1))


def test_a_list_of_nodes_says_nothing_inside_an_allocation_or_as_the_name_of_a_file() -> None:
    inside = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3"}
    assert plan_for_command(command(slurm=NAMED, environ=inside)).target.nodes == 3
    assert plan_for_command(command(slurm=SlurmOptions(nodelist="./hosts"))).target.nodes == 1
