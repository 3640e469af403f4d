"""The options of ``phalanx run``, group by group. Slurm's letters keep their meaning, and docker's theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from phalanx.controller.cli.completing import allowance_words, tag_words
from phalanx.controller.cli.selecting import prefix_option

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def tags_option(words: str) -> Callable[[F], F]:
    """``--tags``, with its line of help."""
    return click.option("--tags", multiple=True, metavar="TAG,...", shell_complete=tag_words, help=words)


WHAT: tuple[Callable[[Any], Any], ...] = (
    tags_option("Models of models.json to run, by tag or name; with -m, models of the manifest."),
    click.option(
        "-m",
        "--manifest-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Run the models of this build_manifest.json in their images.",
    ),
    click.option(
        "-c",
        "--additional-context",
        metavar="JSON",
        help="Additional context, as madengine takes it: JSON or a Python literal.",
    ),
    click.option(
        "--additional-context-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The same from a file, below that of the command line.",
    ),
    click.option(
        "--unknown-keys",
        type=click.Choice(["error", "warn"]),
        default="error",
        envvar="PHALANX_UNKNOWN_KEYS",
        help="Keys of a context that nothing here knows: refuse them, or warn and go on.",
    ),
    click.option(
        "--data-config",
        default="",
        metavar="FILE",
        help="Where data sets are, instead of data.json of the project.",
    ),
    click.option(
        "--force-mirror-local",
        default="",
        metavar="PATH",
        help="Folder of the nodes that keeps copies of data sets.",
    ),
    click.option(
        "-J", "--job-name", "name", default="", metavar="NAME", help="Name of the run (and of the job)."
    ),
    click.option(
        "--cleanup-perf",
        "rows_only",
        is_flag=True,
        help="Leave perf.csv alone, without perf_entry, perf_super and the like beside it.",
    ),
    click.option("-o", "--output", "output_csv", metavar="CSV", help="Append rows here (models: perf.csv)."),
    click.option(
        "--performance",
        type=click.Choice(["first", "last"]),
        help="Which 'performance:' line of a log counts; first, unless said.",
    ),
    click.option(
        "-s",
        "--summary-output",
        default="",
        metavar="FILE",
        help="Also write what became of all here, as JSON.",
    ),
)

BUILD: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "-a", "--target-archs", multiple=True, metavar="ARCH,...", help="Build for these GPU architectures."
    ),
    click.option(
        "-r", "--registry", default="", metavar="REGISTRY", help="Push the images that are built there."
    ),
    click.option("--clean-docker-cache", "fresh", is_flag=True, help="Build without cached layers."),
)

WHERE: tuple[Callable[[Any], Any], ...] = (
    click.option("-N", "--nodes", type=click.IntRange(1), metavar="COUNT", help="How many nodes."),
    click.option("-n", "--ntasks", type=click.IntRange(1), metavar="COUNT", help="How many ranks in all."),
    click.option("--ntasks-per-node", type=click.IntRange(1), metavar="COUNT", help="Ranks on each node."),
    click.option(
        "--parallel",
        type=click.IntRange(1),
        metavar="COUNT",
        help="Up to so many models at a time on the same nodes, each on GPUs of its own.",
    ),
    click.option(
        "--target",
        type=click.Choice(["local", "slurm"]),
        help="Default: slurm inside or for a job, else local.",
    ),
    click.option(
        "--min-nodes", type=click.IntRange(1), metavar="COUNT", help="Go on with this many nodes joined."
    ),
    click.option("--join-timeout", default="", metavar="TIME", help="How long nodes may take to join."),
    click.option(
        "--advertise", multiple=True, metavar="ADDR", help="Address of this machine that nodes can reach."
    ),
    click.option("--agent-python", default="", metavar="PATH", help="Python interpreter on the nodes."),
)

SLURM: tuple[Callable[[Any], Any], ...] = (
    click.option("-p", "--partition", default="", help="Slurm partition."),
    click.option("-A", "--account", default="", help="Slurm account."),
    click.option("-t", "--time", default="", help="Time limit of the allocation."),
    click.option("--qos", default=""),
    click.option("--reservation", default=""),
    click.option("-w", "--nodelist", default="", metavar="NODESET", help="These nodes; all, without -N."),
    click.option("-x", "--exclude", default="", metavar="NODESET", help="Not these nodes."),
    click.option("-C", "--constraint", default="", help="Features that nodes must have."),
    click.option("--gres", default="", help="Generic resources, such as gpu:8."),
    click.option("--gpus-per-node", default="", metavar="COUNT"),
    click.option(
        "--exclusive/--no-exclusive",
        default=None,
        help="Whole nodes (models get them unless someone says otherwise).",
    ),
    click.option(
        "--slurm-arg",
        "extra",
        multiple=True,
        metavar="ARG",
        help="Any other option of salloc, as --opt=value.",
    ),
)

ARCHIVE = click.option(
    "--image-archive", default="", metavar="TAR", help="Take the image from this archive or OCI layout."
)

BULK: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--bulk-security",
        type=click.Choice(["tls", "integrity"]),
        default="tls",
        help="How layers travel between nodes: encrypted, or verified only (for trusted fabrics).",
    ),
    click.option(
        "--bulk-rate",
        default="",
        metavar="SIZE",
        help="Most bytes a second of layers that a node, or this machine, gives to all others together.",
    ),
)

PLACE: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--runtime",
        type=click.Choice(["process", "docker"]),
        envvar="PHALANX_RUNTIME",
        help="What ranks run in; with process nothing is built.",
    ),
    click.option("--image", default="", metavar="REF", help="Container image."),
    ARCHIVE,
    *BULK,
    click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Environment of the ranks."),
    click.option(
        "--secret", multiple=True, metavar="NAME[=env:VAR|file:PATH]", help="A value that is shown nowhere."
    ),
    click.option(
        "-v", "--mount", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="Mount a path of the node."
    ),
    click.option("--device", "devices", multiple=True, metavar="PATH", help="Give a device."),
    click.option(
        "--allow",
        multiple=True,
        metavar="WORD,...",
        shell_complete=allowance_words,
        help="Let containers have what gives a node away: privileged, host-pid, host-uts, host-userns, "
        "capabilities, engine-socket, system-paths or devices. Default: PHALANX_ALLOW.",
    ),
    click.option("--memory", default="", metavar="SIZE", help="Memory limit, such as 16g."),
    click.option("--cpus", default="", metavar="COUNT", help="CPU limit."),
    click.option("--shm-size", default="", metavar="SIZE"),
    click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]"),
    click.option("--timeout", default="", metavar="TIME", help="End the model script after this long."),
    click.option(
        "--tools-config",
        default="",
        metavar="JSON",
        help="Definitions of tools over phalanx's own (default: scripts/common/tools.json, if there is one).",
    ),
    click.option(
        "--sys-env-details/--no-sys-env-details",
        default=None,
        help="Bring back what each model's container is, as MODEL_env.csv (the default).",
    ),
    click.option(
        "--keep-model-dir", is_flag=True, help="Bring back all that is in the model's folder on each node."
    ),
    click.option("--skip-model-run", is_flag=True, help="Do everything but the model's own script."),
    click.option(
        "--disable-skip-gpu-arch",
        "run_on_skipped",
        is_flag=True,
        help="Run models also on GPUs that their skip_gpu_arch names.",
    ),
    click.option("--keep", is_flag=True, help="Keep nodes and agents afterwards, for phalanx exec."),
    click.option(
        "--keep-alive",
        is_flag=True,
        help="The same, and the containers as the models left them, until phalanx cancel.",
    ),
)

HOW: tuple[Callable[[Any], Any], ...] = (
    click.option("-d", "--detach", is_flag=True, help="Print the run id and leave."),
    click.option(
        "--dry-run", is_flag=True, help="Show the plan with where each value is from; touch nothing."
    ),
    click.option(
        "--exit",
        "exit_policy",
        type=click.Choice(["first", "max", "any"]),
        help="Which rank's code is returned.",
    ),
    click.option(
        "--baseline",
        default="",
        metavar="NAME",
        help="Hold what a run that succeeded has measured against this baseline; exit 7 when it got worse.",
    ),
    click.option(
        "-l/ ",
        "--live-output/--no-live-output",
        default=True,
        help="Show what ranks write as they write it (the default), or results only.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Log lines and failures only."),
    click.option("--verbose", is_flag=True, help="More words (the lines of the spawner)."),
    click.option(
        "--progress",
        type=click.Choice(["auto", "tty", "plain", "json", "quiet"]),
        default="auto",
        envvar="PHALANX_PROGRESS",
        help="How to tell what happens; auto is plain without a terminal or with CI set.",
    ),
    prefix_option,
    click.option(
        "--reconnect-timeout", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS"
    ),
    click.option("--heartbeat", type=click.FloatRange(0, min_open=True), hidden=True),
    click.option("--dead-after", type=click.FloatRange(0, min_open=True), hidden=True),
    click.option("--lease", type=click.FloatRange(0, min_open=True), hidden=True),
    click.option("--stop-grace", type=click.FloatRange(0), hidden=True),
)


#: What only a run with ranks has.
_OF_RANKS = (
    "parallel",
    "ntasks",
    "ntasks_per_node",
    "min_nodes",
    "exit_policy",
    "prefix",
    "baseline",
    "live_output",
)
_OF_RESULTS = ("rows_only", "output_csv", "performance", "summary_output")

#: What only a run with data has.
_OF_DATA = ("data_config", "force_mirror_local")


def run_options(function: F) -> F:
    """All of them, in the order in which ``--help`` shows them."""
    return _given((*WHAT, *BUILD, *WHERE, *SLURM, *PLACE, *HOW), function)


def build_options(function: F) -> F:
    """Those of ``build`` that it shares with ``run``: which models, in which context, on which node."""
    tags = tags_option("Models of models.json to build, by tag or name.")
    left_out = ("tags", "name", "manifest_file", *_OF_RESULTS, *_OF_DATA)
    what = (tags, *_without(WHAT, *left_out))
    where = _without(WHERE, *_OF_RANKS, "nodes")
    return _given((*what, *BUILD, *where, *SLURM), function)


def sync_options(function: F) -> F:
    """Those of ``image sync``: the same words for the same things."""
    return _given(
        (*_without(WHERE, *_OF_RANKS), *SLURM, ARCHIVE, *BULK, *_without(HOW, *_OF_RANKS)), function
    )


def inventory_options(function: F) -> F:
    """Those of ``image ls`` and ``image prune``: of ``image sync``, but nothing that moves an image."""
    return _given((*_without(WHERE, *_OF_RANKS), *SLURM, *_without(HOW, *_OF_RANKS, "detach")), function)


def _without(options: Sequence[Callable[[Any], Any]], *names: str) -> list[Callable[[Any], Any]]:
    return [option for option in options if _name(option) not in names]


def _given(options: Sequence[Callable[[Any], Any]], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def _name(option: Callable[[Any], Any]) -> str:
    """The parameter that an option of click makes."""

    def probe() -> None: ...

    made: Any = option(probe)
    return str(made.__click_params__[0].name)
