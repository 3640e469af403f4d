"""Which launcher a case has, and what it adds to the case: environment, refusals, the column of the row.

A launcher forms the processes of a node itself, from one start of the script. With several ranks on a node
(``--ntasks-per-node``) each of them would form all of them again, so the two together are refused rather than
warned of: eight times eight processes on eight GPUs end in an error that names neither.

A model with GPUs whose launcher nobody names gets torchrun's command as well, as in madengine, and for
several nodes the one over all of them: one that stands alone would be as many trainings as nodes. The row
says ``docker`` or ``process`` then. Without GPUs (and without a number of processes) nothing is set.
"""

from __future__ import annotations

from ..workflow.card import ModelCard
from ..workflow.distributed import Distributed
from ..workflow.errors import InputError, did_you_mean
from .env import Environment
from .gpus import Gpus
from .inputs import RunInputs
from .launch_shape import Shape, check_processes, checked, origin_of, values_of
from .launch_table import BY_NAME, NONE_NAMED, ROWS, SHARED, UNNAMED, Launcher, Variable
from .placement import Placement
from .templates import NAMES, names_in, render

RUNNER = "MAD_MULTI_NODE_RUNNER"


def launcher_of(inputs: RunInputs, said: Distributed) -> Launcher | None:
    """The row of the launcher that is asked for; None for none. Raises InputError for one that nobody knows.

    ``MAD_LAUNCHER`` of this environment counts least, and not at all when it names none: it may be another
    program's.
    """
    if not said.enabled:
        return None
    if said.launcher:
        return _row(said.launcher, said.origin("launcher"))
    return BY_NAME.get(inputs.environ.get("MAD_LAUNCHER", ""))


def _row(name: str, origin: str) -> Launcher | None:
    if name.lower() in NONE_NAMED:
        return None
    row = BY_NAME.get(name)
    if row is None:
        known = ", ".join(row.name for row in ROWS)
        raise InputError(
            f"cannot use {origin}: no launcher is called {name!r}, there are {known}"
            f"{did_you_mean(name, BY_NAME)}"
        )
    return row


def launcher_column(launcher: Launcher | None, *, docker: bool) -> str:
    """The value of the column: the launcher by its usual name, else what started the ranks."""
    return launcher.name if launcher else ("docker" if docker else "process")


def shape_of(
    inputs: RunInputs,
    card: ModelCard,
    placement: Placement,
    gpus: Gpus,
    said: Distributed,
    launcher: Launcher | None,
    image: str,
) -> Shape | None:
    """The checked sizes of the launch, None when nothing is to be formed. Raises InputError."""
    ranks = inputs.ranks_per_node or 1
    placement.warnings.extend(_unused(launcher, said))
    if launcher is None and (ranks > 1 or not said.enabled or not (gpus.count or said.nproc_per_node)):
        return None
    shape = Shape(
        card.name,
        launcher or UNNAMED,
        said,
        gpus,
        placement.target.nodes,
        placement.origins.get("target.nodes", "default"),
        image,
        inputs.at_once > 1,
    )
    if launcher is not None:
        _fits(inputs, shape, placement)
    else:
        check_processes(shape)
    return shape


#: Blocks that only some launchers read.
_READERS = {
    "vllm": ("vllm",),
    "sglang": ("sglang", "sglang-disagg"),
    "primus": ("primus",),
    "sglang_disagg": ("sglang-disagg", "slurm_multi"),
    "vllm_disagg": ("slurm_multi",),
}


def _unused(launcher: Launcher | None, said: Distributed) -> list[str]:
    """Blocks that say something to another launcher, each by the first key that does."""
    name = launcher.name if launcher else "none"
    return [
        f"{origins[0]} is not used: it is for {' and '.join(readers)}, and the launcher is {name}"
        for block, readers in _READERS.items()
        if name not in readers
        and (origins := [origin for path, origin in said.origins.items() if path.startswith(f"{block}.")])
    ]


def _fits(inputs: RunInputs, shape: Shape, placement: Placement) -> None:
    row, said, target = shape.launcher, shape.said, placement.target
    origin = said.origin("launcher") if said.launcher else "MAD_LAUNCHER"
    if (inputs.ranks_per_node or 1) > 1:
        raise InputError(
            f"cannot use --ntasks-per-node {inputs.ranks_per_node} with {row.name} ({origin}): it forms the "
            "processes of a node itself; leave the option out, and say their number as "
            "distributed.nproc_per_node"
        )
    if 0 < target.min_nodes < target.nodes and not row.any_nodes:
        raise InputError(
            f"cannot use --min-nodes {target.min_nodes} with {row.name} ({origin}): its sizes are for all "
            f"{target.nodes} nodes; leave the option out"
        )
    checked(shape)
    if said.nnodes and said.nnodes != shape.nodes:
        placement.warnings.append(
            f"{said.origin('nnodes')} asks for {said.nnodes} nodes and gives way to {shape.nodes} "
            f"({shape.nodes_origin})"
        )


def put_launch(environment: Environment, shape: Shape) -> None:
    """The launcher's variables; what users say comes later and goes over them. Raises InputError."""
    row, said = shape.launcher, shape.said
    values = values_of(shape)
    named = row is not UNNAMED
    origin = f"launcher {row.name}" if named else "phalanx, for a model with GPUs"
    variables = (*(SHARED if named else ()), *row.variables, *((row.runner,) if row.runner else ()))
    for variable in variables:
        text = variable.one if shape.nodes == 1 else variable.many
        if shape.at_once and shape.nodes == 1 and variable is row.runner:
            text += row.port_option
        if text and all(values.get(name, "?") for name in names_in(text)):
            _put(environment, variable, text, values, origin_of(shape, text) or origin)
    if named:
        for block, serving in (("vllm", said.vllm), ("sglang", said.sglang)):
            if row.name.startswith(block):
                for name, value in serving.env.items():
                    environment.put(name, value, said.origin(f"{block}.env.{name}"))


def put_interfaces(environment: Environment, said: Distributed, target: str, where: str = "") -> None:
    """The network interfaces of NCCL and gloo, by the files' words. Raises InputError.

    ``where``: of the card, when only what is not from it is to be put: that goes over the card's variables.
    """

    def put(name: str, value: str, origin: str) -> None:
        if not where or not origin.startswith(where):
            environment.put_literal(name, value, origin)

    if said.interface and target == "slurm":
        for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            put(name, said.interface, said.origin("interface"))
    for name, value in said.env.items():
        put(name, value, said.origin(f"env.{name}"))


def _put(
    environment: Environment, variable: Variable, text: str, values: dict[str, str], origin: str
) -> None:
    """Only text of the table is a template: a value that came from a user is never looked into."""
    filled = render(text, values)
    template = bool(names_in(text) & NAMES.keys())
    environment.put_literal(variable.name, filled, origin, template=template)


def check_devices(environment: Environment, launcher: Launcher | None) -> None:
    """What the variables of visible devices do to Ray. Raises InputError.

    Ray refuses to start when both HIP and CUDA name devices; and where HIP does, an image's own wish to keep
    Ray from setting it would give every worker all GPUs (both are madengine's rules).
    """
    hip, cuda = (environment.values.get(f"{name}_VISIBLE_DEVICES") for name in ("HIP", "CUDA"))
    if launcher is not None and launcher.ray and hip and cuda:
        raise InputError(
            f"cannot use {cuda.origin} with {launcher.name}: HIP_VISIBLE_DEVICES is set as well "
            f"({hip.origin}), and Ray does not start with both; leave one out"
        )
    if hip and "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES" not in environment.values:
        environment.put_literal("RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES", "", "phalanx")
