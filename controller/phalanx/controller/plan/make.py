"""Inputs become a plan: pure functions, the same for every front end.

Precedence, the later over the earlier: presets, model card, manifest, context file, context of the command
line, options. Whatever is wrong is said here, before a node is asked for, as an ``InputError``.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import PurePath
from typing import Literal

from phalanx.protocol.messages import Runtime

from ..workflow.card import ModelCard
from ..workflow.distributed import distributed_of
from ..workflow.errors import InputError
from ..workflow.secrecy import secrets_within
from .allowances import allowance_origins, allowance_warnings
from .at_once import check_at_once, cost_of
from .container import container_of, image_of, mount_warnings, runtime_of
from .env import Environment
from .gpus import gpus_of
from .image import bulk_warnings, checked_reference, image_plan, image_plans, travel_plan
from .inputs import RunInputs
from .launchers import launcher_column
from .model import PLAN_SCHEMA, CasePlan, ImagePlan, InventoryPlan, Plan, ResultRule, Share, StepPlan, Timing
from .model_case import add_asked, add_context, case_name, master_port, model_case
from .placement import Placement, place
from .quantities import duration
from .result_rule import which_line
from .secrets import Secret, Secrets, mask_argv
from .text import checked

MOST_RANKS = 1024
#: Limits of the protocol for one command: arguments, and characters of one.
MOST_ARGUMENTS, LONGEST_ARGUMENT = 4096, 131072
DEFAULT_CSV = "perf.csv"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
ExitPolicy = Literal["workflow", "first", "max", "any"]


def plan_for_command(inputs: RunInputs) -> Plan:
    """The plan of ``phalanx run -- COMMAND``. Raises InputError."""
    return checked(*_command(inputs))


def plan_for_tags(inputs: RunInputs) -> Plan:
    """The plan of ``phalanx run --tags ...``: a case for each model. Raises InputError."""
    return checked(*_tags(inputs))


def plan_for_image(inputs: RunInputs) -> Plan:
    """The plan of ``phalanx image sync``: an image on every node, and no case. Raises InputError."""
    if not inputs.image:
        raise InputError("cannot sync an image: none is named; say: phalanx image sync IMAGE")
    image = image_plan(inputs, checked_reference(inputs.image, "IMAGE"))
    none = Secrets({})
    return checked(plan_of_cases(inputs, place(inputs), (), (image,), "workflow", "", none), none)


def plan_for_inventory(inputs: RunInputs, prune: bool) -> Plan:
    """The plan of ``phalanx image ls`` and ``image prune``: every node is asked. Raises InputError."""
    reference = checked_reference(inputs.image, "IMAGE") if inputs.image else ""
    none = Secrets({})
    plan = checked(plan_of_cases(inputs, place(inputs), (), (), "workflow", "", none), none)
    return dataclasses.replace(plan, inventory=InventoryPlan(reference, prune))


def secrets_of(inputs: RunInputs) -> Secrets:
    """The values of every name that the plan of these inputs marks secret. Raises InputError."""
    return (_command(inputs) if inputs.command else _tags(inputs))[1]


def _command(inputs: RunInputs) -> tuple[Plan, Secrets]:
    if inputs.models:
        raise InputError("cannot run both models and a command: give --tags or -- COMMAND, not both")
    if not inputs.command:
        raise InputError("cannot run: no command is given; say: phalanx run -- COMMAND")
    placement = place(inputs)
    case, secrets = _command_case(inputs, placement)
    images = image_plans(inputs, [case])
    return plan_of_cases(inputs, placement, (case,), images, "max", "", secrets), secrets


def _tags(inputs: RunInputs) -> tuple[Plan, Secrets]:
    if inputs.command:
        raise InputError("cannot run both models and a command: give --tags or -- COMMAND, not both")
    if not inputs.models:
        raise InputError("cannot run: no model is chosen; say --tags NAME, or -- COMMAND")
    placement = place(inputs)
    taken: set[str] = set()
    made = [
        model_case(inputs, model, placement, case_name(model.card.name, taken)) for model in inputs.models
    ]
    secrets: dict[str, Secret] = {}
    for case, found in made:
        _merge_secrets(secrets, found, case.name)
    cases = tuple(case for case, _ in made)
    merged = Secrets(secrets)
    plan = plan_of_cases(
        inputs, placement, cases, image_plans(inputs, cases), "workflow", DEFAULT_CSV, merged
    )
    return plan, merged


def _command_case(inputs: RunInputs, placement: Placement) -> tuple[CasePlan, Secrets]:
    if inputs.context.model_args is not None or inputs.context.encapsulate:
        raise InputError("cannot use model_args or encapsulate_script with a command: they belong to models")
    context = inputs.context
    said = distributed_of(None, context)
    if said.launcher:
        origin = said.origin("launcher")
        placement.warnings.append(f"{origin} is not used: it forms the ranks of models, not of a command")
    image, origin = image_of(inputs, None)
    runtime, why = runtime_of(inputs, image, origin)
    gpus = gpus_of(context, None, inputs.slurm.gpus_per_node)
    environment = Environment(inputs.environ)
    if gpus.known:
        environment.put("GPUS_PER_NODE", str(gpus.known), "phalanx")
    add_context(environment, context)
    add_asked(environment, inputs, ambient=False)
    env, secrets = environment.finished()
    name = case_name(inputs.name or PurePath(inputs.command[0]).name, set())
    placement.origins[f"cases.{name}.runtime"] = why
    limited = inputs.timeout not in ("", "-1")
    placement.origins[f"cases.{name}.timeout"] = "--timeout" if limited else "default"
    container = container_of(inputs, None, runtime, image if runtime is Runtime.DOCKER else "", gpus)
    case = CasePlan(
        name=name,
        steps=(
            StepPlan(
                "main", inputs.command, deadline_s=duration(inputs.timeout, "--timeout") if limited else 0.0
            ),
        ),
        container=container,
        env=env,
        ranks_per_node=inputs.ranks_per_node or 1,
        workspace=(Share(inputs.workspace),) if inputs.workspace else (),
        keep_alive=inputs.keep_alive,
        gpu_count=gpus.count,
        result=ResultRule(require_performance=False, which=which_line(inputs, placement, name)),
        columns={
            "model": name,
            "n_gpus": str((gpus.known or 0) * placement.target.nodes),
            "nnodes": str(placement.target.nodes),
            "gpus_per_node": str(gpus.known or 0),
            "pipeline": inputs.environ.get("pipeline", ""),
            "docker_image": container.image,
            "deployment_type": placement.target.kind,
            "launcher": launcher_column(None, docker=bool(container.image)),
            "build_number": inputs.environ.get("BUILD_NUMBER", "") or "0",
        },
        master_port=master_port(inputs, env, said.port),
    )
    return case, secrets


def plan_of_cases(
    inputs: RunInputs,
    placement: Placement,
    cases: tuple[CasePlan, ...],
    images: tuple[ImagePlan, ...],
    policy: ExitPolicy,
    output_csv: str,
    secrets: Secrets,
) -> Plan:
    """The whole plan around its cases. Raises InputError."""
    _check(inputs, cases)
    check_at_once(inputs, cases)
    travel = travel_plan(inputs)
    if inputs.exit_policy:
        if inputs.exit_policy not in ("workflow", "first", "max", "any"):
            raise InputError(f"cannot use --exit {inputs.exit_policy}: expected first, max or any")
        policy = inputs.exit_policy  # type: ignore[assignment]
    timing = Timing()
    if inputs.join_timeout:
        timing = Timing(join_timeout_s=duration(inputs.join_timeout, "--join-timeout"))
        if timing.join_timeout_s < 1:
            raise InputError(f"cannot use --join-timeout {inputs.join_timeout}: at least 1s is needed")
    return Plan(
        schema=PLAN_SCHEMA,
        run_id=inputs.run_id,
        name=inputs.name or (cases[0].name if cases else "image"),
        argv=mask_argv(inputs.argv, _all_secrets(inputs, secrets)),
        cwd=inputs.cwd,
        target=placement.target,
        images=images,
        cases=cases,
        output_csv=_csv_path(inputs, output_csv),
        entries=inputs.cwd if output_csv and inputs.output_csv != "" and not inputs.rows_only else "",
        travel=travel,
        timing=timing,
        exit_policy=policy,
        keep=inputs.keep or inputs.keep_alive,
        parallel=inputs.at_once,
        origins={**placement.origins, **allowance_origins(inputs, cases)},
        refusals=tuple(placement.refusals),
        warnings=tuple(
            dict.fromkeys(
                (
                    *(*inputs.notes, *inputs.context.warnings, *placement.warnings, *bulk_warnings(travel)),
                    *_container_warnings(inputs, cases),
                    *cost_of(inputs.at_once, cases),
                )
            )
        ),
    )


def _container_warnings(inputs: RunInputs, cases: tuple[CasePlan, ...]) -> list[str]:
    if not any(case.container.runtime is Runtime.DOCKER for case in cases):
        return []
    cards: list[ModelCard | None] = [model.card for model in inputs.models]
    return [*allowance_warnings(inputs, cases), *mount_warnings(inputs, cards or [None])]


def _all_secrets(inputs: RunInputs, secrets: Secrets) -> Secrets:
    """Those that the cases get, and whatever else the context says that no file may hold."""
    said = {
        name: Secret(text, "additional context") for name, text in secrets_within(inputs.context.document)
    }
    return Secrets({**said, **secrets})


def _csv_path(inputs: RunInputs, default: str) -> str:
    """Absolute, so that the controller's working directory does not matter."""
    said = default if inputs.output_csv is None else inputs.output_csv
    return str(PurePath(inputs.cwd, said)) if said else ""


def _check(inputs: RunInputs, cases: tuple[CasePlan, ...]) -> None:
    if not _RUN_ID.fullmatch(inputs.run_id):
        raise InputError(f"cannot use the run id {inputs.run_id!r}: letters, digits, '.', '-' and '_' only")
    if inputs.ranks_per_node is not None and not 1 <= inputs.ranks_per_node <= MOST_RANKS:
        raise InputError(f"cannot use --ntasks-per-node {inputs.ranks_per_node}: expected 1 to {MOST_RANKS}")
    if inputs.master_port is not None and not 1 <= inputs.master_port <= 65535:
        raise InputError(f"cannot use --master-port {inputs.master_port}: expected 1 to 65535")
    for case in cases:
        for step in case.steps:
            if len(step.argv) > MOST_ARGUMENTS or any(len(word) > LONGEST_ARGUMENT for word in step.argv):
                raise InputError(f"cannot run {case.name}: its command is too long")
            if any("\0" in word for word in step.argv) or not step.argv[0]:
                raise InputError(f"cannot run {case.name}: its command holds an empty name or a NUL")


def _merge_secrets(secrets: dict[str, Secret], found: Secrets, case: str) -> None:
    """Secrets travel by name, for all cases of a run. Raises InputError when two cases differ."""
    for name, secret in found.items():
        earlier = secrets.setdefault(name, secret)
        if earlier.value != secret.value:
            raise InputError(
                f"cannot run {case}: its secret {name} differs from that of another model of this run"
            )
