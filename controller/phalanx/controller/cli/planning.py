"""From the words of ``phalanx run`` to a plan. Only gathers: what is refused and why, ``plan`` decides."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.controller.cli.selecting import node_names, refuse
from phalanx.controller.exits import Exit
from phalanx.controller.runs.directory import new_run_id

if TYPE_CHECKING:
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.plan.inputs import RunInputs
    from phalanx.controller.plan.model import Plan, SlurmOptions
    from phalanx.controller.workflow.manifest import Manifest

_SLURM = (
    "partition",
    "time",
    "account",
    "qos",
    "reservation",
    "nodelist",
    "exclude",
    "constraint",
    "gres",
    "gpus_per_node",
    "exclusive",
    "extra",
)
_AS_THEY_ARE = (
    "command",
    "name",
    "min_nodes",
    "image",
    "image_archive",
    "bulk_security",
    "bulk_rate",
    "env",
    "mounts",
    "devices",
    "memory",
    "cpus",
    "shm_size",
    "ulimits",
    "timeout",
    "join_timeout",
    "advertise",
    "agent_python",
    "keep",
    "output_csv",
    "keep_alive",
    "rows_only",
    "keep_model_dir",
    "skip_model_run",
    "run_on_skipped",
    "allow",
    "parallel",
)
_OF_SYNC = ("image_archive", "bulk_security", "bulk_rate", "join_timeout", "advertise", "agent_python")
_TIMING = {
    "heartbeat": "heartbeat_s",
    "dead_after": "dead_after_s",
    "lease": "lease_s",
    "stop_grace": "stop_grace_s",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, what it was made from, and the build that has to come first, if any."""

    plan: Plan
    inputs: RunInputs
    build: PlannedBuild | None = None

    @property
    def secrets(self) -> dict[str, str]:
        """The values of the plan's secrets, by name."""
        from phalanx.controller.plan.make import secrets_of

        return secrets_of(self.inputs).values_by_name()


def planned(given: Mapping[str, Any]) -> Planned:
    """The plan of ``run``.

    Ends the command for input that cannot be used: exit 1 when nothing is chosen, 2 when no image can be
    built, else 4.
    """
    from phalanx.controller.workflow.errors import BuildInputError, DiscoveryError, InputError

    try:
        inputs, build = gathered(given, os.environ)
        return Planned(_timed(_plan_of(inputs), given), inputs, build)
    except DiscoveryError as error:
        refuse(str(error), Exit.FAILURE)
    except BuildInputError as error:
        refuse(str(error), Exit.BUILD)
    except InputError as error:
        refuse(str(error), Exit.USAGE)


def planned_as_built(before: Planned, given: Mapping[str, Any], made: Manifest) -> Planned:
    """The same plan after its build: the same models, each in the image that was made for it."""
    from phalanx.controller.builds.for_run import built_models
    from phalanx.controller.workflow.errors import InputError

    try:
        models = built_models(before.inputs.models, made)
        inputs = dataclasses.replace(before.inputs, models=models, run_id=new_run_id(run_name(given)))
        return Planned(_timed(_plan_of(inputs), given), inputs)
    except (InputError, LookupError) as error:
        refuse(f"cannot run what was built: {error}", Exit.USAGE)


def _plan_of(inputs: RunInputs) -> Plan:
    from phalanx.controller.plan.make import plan_for_command, plan_for_tags

    return plan_for_command(inputs) if inputs.command else plan_for_tags(inputs)


def planned_sync(image: str, given: Mapping[str, Any]) -> Plan:
    """The plan of ``image sync``. Ends the command with exit 4 for input that cannot be used."""
    from phalanx.controller.plan.make import plan_for_image

    return _of_images(image, given, plan_for_image)


def planned_inventory(image: str, given: Mapping[str, Any], prune: bool) -> Plan:
    """The plan of ``image ls`` and ``image prune``. Ends the command with exit 4 as well."""
    from phalanx.controller.plan.make import plan_for_inventory

    return _of_images(image, given, lambda inputs: plan_for_inventory(inputs, prune))


def _of_images(image: str, given: Mapping[str, Any], make: Callable[[RunInputs], Plan]) -> Plan:
    from phalanx.controller.plan.inputs import RunInputs
    from phalanx.controller.plan.text import check_folder
    from phalanx.controller.workflow.errors import InputError

    try:
        check_folder(str(Path.cwd()))
        check_archive(given.get("image_archive", ""))
        inputs = RunInputs(
            run_id=new_run_id("image"),
            cwd=str(Path.cwd()),
            argv=("phalanx", *sys.argv[1:]),
            environ=dict(os.environ),
            name="image",
            target=given["target"] or "",
            nodes=given["nodes"],
            image=image,
            slurm=slurm_options(given),
            **{name: given[name] for name in _OF_SYNC if name in given},
        )
        plan = make(inputs)
    except InputError as error:
        refuse(str(error), Exit.USAGE)
    return _timed(plan, given)


def _timed(plan: Plan, given: Mapping[str, Any]) -> Plan:
    timing = {field: given[name] for name, field in _TIMING.items() if given.get(name) is not None}
    return dataclasses.replace(plan, timing=dataclasses.replace(plan.timing, **timing))


def gathered(given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[RunInputs, PlannedBuild | None]:
    """The options as inputs of a plan, and the build that has to come first. Raises InputError."""
    from phalanx.controller.builds.credentials import run_credentials
    from phalanx.controller.cli.choosing import choose_models
    from phalanx.controller.cli.providing import data_inputs
    from phalanx.controller.plan.inputs import RunInputs
    from phalanx.controller.plan.secrets import read_secrets
    from phalanx.controller.plan.text import check_folder
    from phalanx.controller.workflow.surroundings import Surroundings, find_surroundings

    check_folder(str(Path.cwd()))
    check_archive(given["image_archive"])
    nodes, ranks_per_node = shape(_counted(given), given.get("ntasks"), given.get("ntasks_per_node"))
    chosen = choose_models(given, environ)
    context = chosen.context
    project = Path(chosen.models[0].project) if chosen.models else Path.cwd()
    around = (
        find_surroundings(context, project, given["tools_config"], given["sys_env_details"])
        if chosen.models
        else Surroundings()
    )
    credentials, lacking = run_credentials(project, (one.card.cred for one in chosen.models), environ)
    inputs = RunInputs(
        run_id=new_run_id(run_name(given)),
        cwd=str(Path.cwd()),
        argv=("phalanx", *sys.argv[1:]),
        environ=dict(environ),
        models=chosen.models,
        notes=(*chosen.notes, *lacking),
        context=context,
        around=around,
        data=data_inputs(given, environ, context, chosen.models),
        credentials=credentials,
        target=given["target"] or "",
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        runtime=given["runtime"] or "",
        secrets=read_secrets((*given["secret"], *chosen.needed), environ),
        slurm=slurm_options(given),
        exit_policy=given["exit_policy"] or "",
        performance=given["performance"] or "",
        **{name: given[name] for name in _AS_THEY_ARE},
    )
    return inputs, chosen.build


def slurm_options(given: Mapping[str, Any]) -> SlurmOptions:
    """What the command line asks of an allocation."""
    from phalanx.controller.plan.model import SlurmOptions

    return SlurmOptions(**{name: given[name] for name in _SLURM})


def check_archive(said: str) -> None:
    """An archive of an image is read on this machine: what is not there is refused. Raises InputError."""
    from phalanx.controller.workflow.errors import InputError

    if not said:
        return
    try:
        mode = Path(said).stat().st_mode
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"cannot use --image-archive {said}: {why}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"cannot use --image-archive {said}: it is neither a file nor a folder")


def _counted(given: Mapping[str, Any]) -> int | None:
    """Nodes on which ranks of ``-n`` go: ``-N``, else as many as ``-w`` names. None for not said."""
    nodes: int | None = given.get("nodes")
    if nodes is not None or given.get("ntasks") is None or given.get("ntasks_per_node") is not None:
        return nodes
    return len(node_names(given["nodelist"])) or None


def shape(nodes: int | None, ntasks: int | None, per_node: int | None) -> tuple[int | None, int | None]:
    """Nodes and ranks per node from ``-N``, ``-n`` and ``--ntasks-per-node``, as srun understands them.

    Ranks are dealt evenly: a count that cannot be is refused.
    """
    if ntasks is None:
        return nodes, per_node
    if per_node is not None and nodes is None:
        nodes = -(-ntasks // per_node)
    if nodes is None:
        return 1, ntasks
    if ntasks % nodes or (per_node is not None and per_node * nodes != ntasks):
        shown = f" of {per_node} each" if per_node is not None else ""
        refuse(
            f"cannot deal {ntasks} ranks to {nodes} nodes{shown}: every node takes equally many; "
            "change -n or -N",
            Exit.USAGE,
        )
    return nodes, ntasks // nodes


def run_name(given: Mapping[str, Any]) -> str:
    """What the run is called: what the user says, else the first tag, else the command."""
    if given["name"]:
        return str(given["name"])
    if given["manifest_file"] and not given["tags"]:
        return "manifest"
    if given["tags"]:
        return str(given["tags"][0]).split(",")[0].split("/")[-1].split(":")[0]
    return Path(given["command"][0]).name if given["command"] else "run"
