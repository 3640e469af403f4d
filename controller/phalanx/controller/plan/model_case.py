"""A model's card as a case: the folder of its scripts is the workspace, its script the main step.

The script runs as ``bash run.sh ARGS`` in a copy of its folder on every node. Arguments are split as a shell
splits words and never pass through one, so nothing in a card is executed but the script it names.
"""

from __future__ import annotations

import glob
import re
from dataclasses import replace
from pathlib import PurePosixPath

from phalanx.protocol.messages import Runtime

from ..workflow.context import Context
from ..workflow.distributed import Distributed, distributed_of
from ..workflow.errors import InputError
from ..workflow.models import SelectedModel
from ..workflow.place import inside
from .container import container_of, image_of, runtime_of
from .data import data_of, with_data
from .docker_options import parse_docker_options
from .driven import driven_steps, put_driven, result_places
from .env import Environment
from .gpus import Gpus, gpus_of, when_given
from .inputs import RunInputs
from .launch_shape import Shape
from .launchers import check_devices, launcher_column, launcher_of, put_interfaces, put_launch, shape_of
from .model import CasePlan, EnvValue, RunsOn, StepPlan
from .model_steps import SSH_KEY, around_model
from .option_secrets import open_options
from .placement import Placement
from .quantities import LONGEST_S, duration
from .result_rule import result_rule
from .secrets import Secret, Secrets, looks_secret
from .tools import ToolStack, stack, system_details, wrap
from .words import split_words, unexpanded

#: Seconds that a model may take when neither card nor command line says (madengine's figure).
MODEL_TIMEOUT_S = 7200.0
#: Files that models and their tools leave beside their results.
ARTEFACTS = (
    *("*_profiler_output.csv", "*_output.csv", "*_trace.csv", "*_env.csv", "library_trace.csv"),
    *("perf_*.csv", "perf-*.csv", "benchmark_*_CONCURRENCY.log"),
    # of torch, rocprof, rocprofv3, rpd and Perfetto
    *("*.pt.trace.json", "*.pt.trace.json.gz", "*.pftrace", "*.rpd", "*_results.db", "*_results.json"),
    *("*_kernel_stats.csv", "*.stats.csv"),
)
#: What scripts are told of the node that they run on; what the context says goes over it.
_SYSTEM = {
    "MAD_GPU_VENDOR": "{SYSTEM_GPU_VENDOR}",
    "MAD_SYSTEM_NGPUS": "{SYSTEM_NGPUS}",
    "MAD_SYSTEM_GPU_ARCHITECTURE": "{SYSTEM_GPU_ARCHITECTURE}",
    "MAD_SYSTEM_GPU_PRODUCT_NAME": "{SYSTEM_GPU_PRODUCT_NAME}",
    "MAD_SYSTEM_HIP_VERSION": "{SYSTEM_HIP_VERSION}",
}
_SHELL_WORDS = {"&&", "||", ";", "|", "&", "<", ">", ">>"}


def model_case(
    inputs: RunInputs, model: SelectedModel, placement: Placement, name: str
) -> tuple[CasePlan, Secrets]:
    """The case of one model. Raises InputError."""
    card = model.card
    _refuse_unsupported(model, placement)
    image, image_origin = image_of(inputs, model)
    said = distributed_of(card, inputs.context)
    placement.warnings.extend(said.warnings)
    launcher = launcher_of(inputs, said)
    head_only = launcher is not None and launcher.head_only
    runtime, why = _on_the_head(inputs) if head_only else runtime_of(inputs, image, image_origin)
    needs_one = placement.target.kind != "local" and not inputs.runtime and not head_only
    if runtime is Runtime.PROCESS and needs_one:
        raise InputError(
            f"cannot run {card.name} on {placement.target.kind}: no image is named; say --image NAME "
            "(or MAD_CONTAINER_IMAGE in the context), or --runtime process to run without a container"
        )
    placement.origins[f"cases.{name}.runtime"] = why
    built_for = model.image.gpu_vendor if model.image else ""
    gpus = gpus_of(inputs.context, card, inputs.slurm.gpus_per_node, built_for)
    _warn_of_no_gpus(inputs, placement, gpus)
    shape = shape_of(inputs, card, placement, gpus, said, launcher, image)
    data = data_of(inputs.data, card, runtime)
    credentials = inputs.credentials.get(card.cred, Secrets())
    tools = stack(inputs.around.tools, inputs.around.pre_scripts, inputs.around.post_scripts)
    for script in (*tools.pre, *tools.post):
        placement.warnings.extend(unexpanded(script.args, f"{script.origin}.args"))
    environment = _environment(inputs, model, placement, gpus, said, shape, credentials, tools)
    if head_only:
        put_driven(environment, inputs, placement, image)
    check_devices(environment, launcher)
    env, secrets = environment.finished()
    own_image = image if runtime is Runtime.DOCKER else ""
    by_plan, on_nodes = when_given(gpus, bool(own_image), inputs.at_once)
    tools = _with_details(inputs, model, tools, secrets)
    where = "on this node" if runtime is Runtime.PROCESS else "in the image"
    around = around_model(model, tools, inputs.around.common, credentials, where)
    container = replace(
        container_of(inputs, card, runtime, own_image, by_plan),
        workdir=around.folder,
    )
    container = with_data(container, data, env)
    placement.warnings.extend(data.warnings)
    placement.origins.update({f"cases.{name}.data.{place}": said for place, said in data.origins.items()})
    multiple = card.multiple_results
    argv = wrap(tools, *_argv(inputs, model, placement))
    main = StepPlan("main", argv, "first" if head_only else "rank", _deadline(inputs, model, placement, name))
    steps = (*around.before, *data.steps, *(() if inputs.skip_model_run else (main,)), *around.after)
    return CasePlan(
        name=name,
        steps=driven_steps(steps) if head_only else steps,
        container=container,
        env={**data.env, **env},
        ranks_per_node=inputs.ranks_per_node or 1,
        workspace=(*data.shares, *around.shares),
        collect=_collected(inputs, multiple, tools),
        result=result_rule(
            inputs, model, placement, name, argv, result_places(inputs, card) if head_only else ()
        ),
        columns={
            **_columns(inputs, model, placement, gpus, image if head_only else container.image),
            "launcher": launcher_column(launcher, docker=bool(container.image)),
        },
        master_port=master_port(inputs, env, said.port),
        needs_image=image if head_only else "",
        roles=shape.roles if shape else {},
        runs_on=_runs_on(inputs, model),
        gpus=on_nodes,
        gpu_count=gpus.count,
        skip="--skip-model-run" if inputs.skip_model_run else "",
        keep_alive=inputs.keep_alive,
        driven=head_only,
        library=data.library,
    ), Secrets({**secrets, **data.secrets, **around.secrets})


def _collected(inputs: RunInputs, multiple: str, tools: ToolStack) -> tuple[str, ...]:
    """Patterns of the files that come back from every node; the name of the results file is none."""
    everything = ("*",) if inputs.keep_model_dir else ()
    return tuple(
        dict.fromkeys((*filter(None, (glob.escape(multiple),)), *ARTEFACTS, *tools.collect, *everything))
    )


def _runs_on(inputs: RunInputs, model: SelectedModel) -> RunsOn:
    """For which GPUs the model's image is, and those on which the card does not want to run."""
    image = model.image
    skip = () if inputs.run_on_skipped else tuple(filter(None, model.card.skip_gpu_arch.split(",")))
    return RunsOn(image.gpu_vendor if image else "", image.gpu_architecture if image else "", skip)


def _warn_of_no_gpus(inputs: RunInputs, placement: Placement, gpus: Gpus) -> None:
    """A shared allocation that asks for no GPUs has none, whatever the model counts on."""
    slurm = placement.target.slurm
    if placement.target.kind != "slurm" or slurm.job_id or slurm.exclusive or not gpus.count:
        return
    if not slurm.gpus_per_node and not slurm.gres:
        placement.warnings.append(
            f"the job asks for no GPUs, and models count on them ({gpus.origin}); say --gpus-per-node "
            f"{gpus.known or 'COUNT'}, or --exclusive"
        )


def _on_the_head(inputs: RunInputs) -> tuple[Runtime, str]:
    """The runtime of a script that starts the containers of all nodes itself. Raises InputError."""
    if inputs.runtime == "docker":
        raise InputError("cannot use --runtime docker with slurm_multi: its script starts containers itself")
    return Runtime.PROCESS, "slurm_multi: the script starts containers itself"


def _with_details(inputs: RunInputs, model: SelectedModel, tools: ToolStack, secrets: Secrets) -> ToolStack:
    """With the script that tells of the container, and shows none of the secrets, unless nobody wants it."""
    context, script = inputs.context, inputs.around.system_script
    if script is None:
        return tools
    name, mode, guest = model.card.name, context.rocenv_mode, context.guest_os
    return tools.then(system_details(script, name, mode, guest, secrets))


def master_port(inputs: RunInputs, env: dict[str, EnvValue], stated: int) -> int:
    """The port that ranks meet on, 0 for one that the first node has free; ``stated``: what the files say.

    Raises InputError.
    """
    if inputs.master_port is not None:
        return inputs.master_port
    if "MASTER_PORT" in env and not env["MASTER_PORT"].secret:
        value = env["MASTER_PORT"]
        if not value.value.isdigit() or not 0 < int(value.value) < 65536:
            raise InputError(f"cannot use {value.origin}: MASTER_PORT: {value.value!r} is no port")
        return int(value.value)
    return stated


def _refuse_unsupported(model: SelectedModel, placement: Placement) -> None:
    """Fields without which the model would not run, or run something else."""
    card = model.card
    multiple = card.multiple_results
    if multiple and inside(PurePosixPath(), multiple) is None:
        raise InputError(f"cannot run {card.where}: multiple_results: {multiple!r} leaves the model's folder")
    placement.warnings.extend(card.warnings())


def _argv(
    inputs: RunInputs, model: SelectedModel, placement: Placement
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that stand before the script, and the script with its arguments."""
    said = inputs.context.model_args
    args, origin = (
        (model.card.args, f"{model.card.where}: args")
        if said is None
        else (said, inputs.context.origin("model_args"))
    )
    placement.warnings.extend(unexpanded(args, origin))
    prefix = split_words(inputs.context.encapsulate, inputs.context.origin("encapsulate_script"))
    if operators := _SHELL_WORDS.intersection(prefix):
        raise InputError(
            f"cannot use {inputs.context.origin('encapsulate_script')}: {min(operators)} needs a shell; "
            "it may only be a command that runs the script"
        )
    return tuple(prefix), (*model.program, *split_words(args, origin))


def _deadline(inputs: RunInputs, model: SelectedModel, placement: Placement, name: str) -> float:
    """Seconds: command line (0 for none, -1 for default), else the card's timeout, else 7200.

    Raises InputError.
    """
    key = f"cases.{name}.timeout"
    if inputs.timeout not in ("", "-1"):
        placement.origins[key] = "--timeout"
        return duration(inputs.timeout, "--timeout")
    if model.card.timeout > 0:
        placement.origins[key] = where = f"{model.card.where}: timeout"
        if model.card.timeout > LONGEST_S:
            raise InputError(f"cannot use {where}: it is more than ten years; it is meant in seconds")
        return float(model.card.timeout)
    placement.origins[key] = "default"
    return MODEL_TIMEOUT_S


def _environment(
    inputs: RunInputs,
    model: SelectedModel,
    placement: Placement,
    gpus: Gpus,
    said: Distributed,
    shape: Shape | None,
    credentials: Secrets,
    tools: ToolStack,
) -> Environment:
    card, context = model.card, inputs.context
    environment = Environment(inputs.environ)
    for name, (value, origin) in placement.preset.block("env_vars").items():
        environment.put(name, str(value), origin)
    for name, template in _SYSTEM.items():
        environment.put_literal(name, template, "phalanx", template=True)
    if gpus.known is None:
        for name in ("MAD_RUNTIME_NGPUS", "GPUS_PER_NODE"):
            environment.put_literal(name, "{SYSTEM_NGPUS}", "phalanx", template=True)
    for name, value in _mad_values(inputs, model, placement, gpus).items():
        environment.put(name, value, "phalanx")
    environment.put_literal("MAD_NODE_RANK", "{NODE_RANK}", "phalanx", template=True)
    environment.put_literal("MAD_TOTAL_NODES", "{NNODES}", "phalanx", template=True)
    environment.put_literal("MAD_COLLECT_METRICS", "{ON_FIRST_NODE}", "phalanx", template=True)
    put_interfaces(environment, said, placement.target.kind)
    if shape is not None:
        put_launch(environment, shape)
    environment.put_all(
        {name: value for name, value in card.env_vars.items() if name != "DOCKER_IMAGE_NAME"},
        f"{card.where}: env_vars",
    )
    for text in parse_docker_options(
        card.additional_docker_run_options, f"{card.where}: additional_docker_run_options"
    ).env:
        environment.put_options([text], f"{card.where}: additional_docker_run_options -e")
    put_interfaces(environment, said, placement.target.kind, card.where)
    _add_around(environment, card.cred, credentials, tools)
    add_context(environment, context)
    add_asked(environment, inputs, ambient=True)
    _add_required(environment, inputs, model)
    return environment


def _add_around(environment: Environment, cred: str, credentials: Secrets, tools: ToolStack) -> None:
    """What the card's credentials give, but for the key of a clone, and what tools are told."""
    for name, secret in credentials.items():
        if name != f"{cred}_{SSH_KEY}":
            environment.put_secret(name, secret)
    for name, (value, origin) in tools.env.items():
        environment.put(name, value, origin)


def _add_required(environment: Environment, inputs: RunInputs, model: SelectedModel) -> None:
    """Secrets that the manifest asks for and nothing else gives, from the login node's environment."""
    image = model.image
    for name in image.secrets if image else ():
        if name in environment.values:
            continue
        if name not in inputs.environ:
            raise InputError(
                f"cannot run {model.card.name}: it needs the secret {name}, which no manifest holds; set the "
                f"variable {name}, or say --secret {name}=file:PATH"
            )
        environment.put_secret(name, Secret(inputs.environ[name], f"env:{name}"))


def add_context(environment: Environment, context: Context) -> None:
    """What the context gives the workload: env_vars, then docker_env_vars over them."""
    environment.put_each(context.env, lambda name: context.origin(f"env_vars.{name}"))
    environment.put_each(
        {name: value for name, value in context.docker_env.items() if name != "MAD_CONTAINER_IMAGE"},
        lambda name: context.origin(f"docker_env_vars.{name}"),
    )


def add_asked(environment: Environment, inputs: RunInputs, *, ambient: bool) -> None:
    """What the command line asks for; ``ambient`` adds MAD_SECRETS* of the login node's environment."""
    if ambient:
        for name, value in inputs.environ.items():
            if "MAD_SECRETS" in name and looks_secret(name):
                environment.put_secret(name, Secret(value, f"env:{name}"))
    environment.put_options(inputs.env, "-e")
    for name in inputs.secrets:
        environment.put_secret(name, inputs.secrets[name])


def _mad_values(inputs: RunInputs, model: SelectedModel, placement: Placement, gpus: Gpus) -> dict[str, str]:
    """The MAD_ variables that scripts of this form read; absent rather than empty."""
    context, target = inputs.context, placement.target
    known = gpus.known
    values = {
        "MAD_MODEL_NAME": model.card.name,
        "MAD_OUTPUT_CSV": model.card.multiple_results,
        "JENKINS_BUILD_NUMBER": inputs.environ.get("BUILD_NUMBER", "") or "0",
        "MAD_DEPLOYMENT_TYPE": target.kind,
        "MAD_IN_SLURM_JOB": "1" if target.kind == "slurm" else "",
        "MAD_GPU_VENDOR": gpus.vendor,
        "MAD_GUEST_OS": context.guest_os,
        "MAD_RUNTIME_NGPUS": str(known) if known else "",
        "GPUS_PER_NODE": str(known) if known else "",
    }
    return {name: value for name, value in values.items() if value}


def _columns(
    inputs: RunInputs, model: SelectedModel, placement: Placement, gpus: Gpus, image: str
) -> dict[str, str]:
    """What the row says of the model, as far as a plan can know."""
    card, per_node = model.card, gpus.known
    return {
        **({name: value for name, value in model.image.columns.items() if value} if model.image else {}),
        "model": card.name,
        "n_gpus": "" if per_node is None else str(per_node * placement.target.nodes),
        "nnodes": str(placement.target.nodes),
        "gpus_per_node": "" if per_node is None else str(per_node),
        "training_precision": card.training_precision,
        "pipeline": inputs.environ.get("pipeline", ""),
        "args": card.args,
        "tags": ",".join(card.tags),
        "docker_image": image,
        "deployment_type": placement.target.kind,
        "build_number": inputs.environ.get("BUILD_NUMBER", "") or "0",
        "additional_docker_run_options": open_options(card.additional_docker_run_options),
    }


def case_name(name: str, taken: set[str]) -> str:
    """A model's name as part of paths and container names, each once in a run."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:100].lstrip(".-") or "case"
    unique, number = stem, 1
    while unique in taken:
        number += 1
        unique = f"{stem}-{number}"
    taken.add(unique)
    return unique
