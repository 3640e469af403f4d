"""A plan as text for people: what ``--dry-run`` prints. Nothing is started, asked or written.

Values stand with where they are from. What only the cluster can tell is marked ``?`` and listed at the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from phalanx.protocol.messages import JOB_NUMBER, Runtime

from ..logs.clean import clean
from ..nodesets import fold_numbers
from .describe_container import allowed_lines, container_lines, mount_line
from .gpus import ALL
from .model import CasePlan, EnvValue, Plan, Share, StepPlan, TargetPlan
from .secrets import MASK
from .templates import shown

LABEL = 11
_TIMES = ((3600.0, "h"), (60.0, "m"), (1.0, "s"))


def describe(plan: Plan, transfer: Iterable[str] = ()) -> str:
    """The text, lines ended by a newline. ``transfer``: what is known of how the image would travel."""
    lines = [f"plan  {plan.name} · {plan.run_id} · nothing will be started", ""]
    lines += _line("nodes", _nodes(plan))
    lines += _line("allocation", _allocation(plan))
    lines += _line("or sbatch", _batch_script(plan))
    lines += _line("image", [*_images(plan), *transfer])
    lines += _line("images", _inventory(plan))
    lines += _line("parallel", _parallel(plan))
    for case in plan.cases:
        lines += ["", f"case  {case.name}", *_case(plan, case)]
    lines.append("")
    lines += _line("limits", _limits_of_time(plan))
    lines += _line("writes", _writes(plan))
    lines += [f"  ! {words}" for words in (*plan.refusals, *plan.warnings)]
    assumed = _assumptions(plan)
    if assumed:
        lines += ["", *(f"  ? {words}" for words in assumed)]
    return "".join(_safe(line) + "\n" for line in lines)


def _safe(line: str) -> str:
    """One line without control characters: values come from files of other people."""
    return clean(line.replace("\n", "⏎").encode("utf-8", "backslashreplace")).decode()


def _line(label: str, values: Iterable[str]) -> Iterator[str]:
    """The label before the first value, the others below it."""
    for value in values:
        yield f"  {label:<{LABEL}} {value}".rstrip()
        label = ""


def _nodes(plan: Plan) -> Iterator[str]:
    target = plan.target
    names = _node_names(target)
    yield f"{target.nodes} on {target.kind}: {names}{_from(plan, 'target.nodes')}"
    if target.min_nodes:
        yield f"goes on with {target.min_nodes} when not all join"
    if target.kind == "slurm" or plan.origins.get("target.kind", "default") != "default":
        yield f"target {target.kind}{_from(plan, 'target.kind')}"


def _node_names(target: TargetPlan) -> str:
    """Local nodes have their names; those of a scheduler are placeholders."""
    if target.slurm.nodelist:
        return target.slurm.nodelist
    stem = "? node" if target.kind == "slurm" else "local"
    return f"{stem}1" if target.nodes == 1 else f"{stem}[1-{target.nodes}]"


def _allocation(plan: Plan) -> Iterator[str]:
    target = plan.target
    if target.kind != "slurm":
        return
    if target.slurm.job_id:
        yield f"job {target.slurm.job_id} is used as it is{_from(plan, 'target.slurm.job_id')}"
    for argv in _slurm_commands(plan):
        yield shlex.join(argv)
    if target.slurm.job_id:
        return
    for name in (
        "partition",
        "time",
        "account",
        "qos",
        "reservation",
        "nodelist",
        "exclude",
        "constraint",
        "gres",
    ):
        value = getattr(target.slurm, name)
        if value:
            yield f"{name} {value}{_from(plan, f'target.slurm.{name}')}"
    if target.slurm.exclusive:
        yield f"whole nodes{_from(plan, 'target.slurm.exclusive')}"


def _slurm_commands(plan: Plan) -> Iterator[tuple[str, ...]]:
    """The scheduler's commands, as the target itself would give them; ``?`` for what only it knows."""
    from ..targets.slurm_argv import agents_step, salloc

    target = plan.target
    options = target.slurm
    if not options.job_id:
        yield salloc(options, nodes=target.nodes, name=plan.name, run_id=plan.run_id)
    step = agents_step(
        options,
        job_id=options.job_id or "?",
        nodes=["?"],
        run_id=plan.run_id,
        agent=Path("phalanx-agent.pyz"),
        python=target.agent_python,
        export=(),
    )
    counts = {"--nodes=1": f"--nodes={target.nodes}", "--ntasks=1": f"--ntasks={target.nodes}"}
    yield tuple(counts.get(word, word) for word in step)


def _batch_script(plan: Plan) -> Iterator[str]:
    """The same allocation as a batch script, for those who rather queue one."""
    from ..targets.slurm_script import ScriptError, sbatch_script

    target = plan.target
    if target.kind != "slurm" or target.slurm.job_id:
        return
    if any(MASK in word for word in plan.argv):
        yield "none: the command holds a secret, and a batch script is kept by the scheduler"
        return
    argv = _queued(plan.argv)
    try:
        text = sbatch_script(
            target.slurm, nodes=target.nodes, name=plan.name, run_id=plan.run_id, cwd=plan.cwd, argv=argv
        )
    except ScriptError as error:
        yield f"none: {error}"
        return
    yield from text.rstrip("\n").split("\n")


def _queued(argv: tuple[str, ...]) -> list[str]:
    """Our own words without those that would end a job at once."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [word for word in argv[:end] if word not in ("--dry-run", "-d", "--detach")] + list(argv[end:])


def _inventory(plan: Plan) -> Iterator[str]:
    wanted = plan.inventory
    if wanted is None:
        return
    if wanted.prune:
        yield "every node's cached layers with which no process works are removed"
        if wanted.reference:
            yield f"{wanted.reference} is removed from every engine whose containers do not use it"
    yield f"every node says what it has of {wanted.reference or 'all images'}"


def _parallel(plan: Plan) -> Iterator[str]:
    if plan.parallel > 1:
        yield f"up to {plan.parallel} cases at a time, each on GPUs and with a MASTER_PORT of its own"


def _images(plan: Plan) -> Iterator[str]:
    """Each with its cases, when there is more than one."""
    for place, image in enumerate(plan.images):
        where = f"from {image.archive}" if image.archive else "from the engine here or of a node"
        line = f"{image.reference}  {where}, to every node that lacks it"
        if len(plan.images) > 1:
            users = [case.name for case in plan.cases if case.image == image.reference]
            when = "" if place == 0 else f", when {users[0]} is due"
            line += f"{when}   (for {', '.join(users)})"
        yield line


def _case(plan: Plan, case: CasePlan) -> Iterator[str]:
    ranks = case.ranks_per_node * plan.target.nodes
    each = f" ({case.ranks_per_node} on each node)" if case.ranks_per_node > 1 else ""
    yield from _line("ranks", [f"0-{ranks - 1}{each}" if ranks > 1 else "0"])
    yield from _line(
        "roles", [", ".join(f"{role}: node {ranks}" for role, ranks in case.roles.items())][: len(case.roles)]
    )
    why = plan.origins.get(f"cases.{case.name}.runtime", "")
    yield from _line("runtime", [f"{case.container.runtime.value}{f'  ({why})' if why else ''}"])
    yield from _line("steps", _steps(plan, case))
    yield from _line("workspace", map(_share, case.workspace))
    yield from _line("gpus", _gpus(plan, case))
    yield from _line("env", _env(case, plan.target.nodes))
    yield from _line("data", _data(plan, case))
    yield from _line("mounts", map(mount_line, case.container.mounts))
    yield from _line("devices", [device.source for device in case.container.devices])
    yield from _line("container", container_lines(case.container))
    yield from _line("allowed", allowed_lines(case.name, case.container, plan.origins))
    yield from _line("results", _results(plan, case))


def _share(share: Share) -> str:
    return f"{share.source} → {f'{share.target} of ' if share.target else ''}a workspace on every node"


def _steps(plan: Plan, case: CasePlan) -> Iterator[str]:
    for step in case.steps:
        end = f"  within {_time(step.deadline_s)}" if step.deadline_s else ""
        origin = _from(plan, f"cases.{case.name}.timeout") if step.name == "main" and end else ""
        per = "on the first node" if step.per == "first" else f"per {step.per}"
        beside = ", beside the container" if step.where == "host" else ""
        yield f"{step.name}, once {per}{beside}: {_argv(step)}{end}{origin}"


def _argv(step: StepPlan) -> str:
    """The command on one line: of a text of several lines, as phalanx's own steps have it, the first."""
    words = [word if "\n" not in word else word.strip().split("\n")[0] + " …" for word in step.argv]
    return shlex.join(words)


def _env(case: CasePlan, nodes: int) -> Iterator[str]:
    if case.driven:
        yield "NNODES PHALANX_*, in a job SLURM_* as a batch script has them   phalanx"
    else:
        yield "RANK LOCAL_RANK WORLD_SIZE NODE_RANK NNODES PHALANX_*   phalanx, for each rank"
    if "MASTER_ADDR" not in case.env:
        yield "MASTER_ADDR=? the first node   phalanx"
    if "MASTER_PORT" not in case.env:
        yield f"MASTER_PORT={case.master_port or '? a free port of the first node'}   phalanx"
    if case.container.data_variable:
        yield f"{case.container.data_variable}={_data_home(case)}   the node"
    for name in sorted(case.env):
        value = case.env[name]
        yield f"{name}={_value(value, nodes, case.master_port)}   {value.origin}"


def _data_home(case: CasePlan) -> str:
    """What the workload is told of its data: places in its container, or those that the node has."""
    if case.container.runtime is not Runtime.PROCESS:
        return shlex.quote(",".join(place.target for place in case.container.data))
    return "? where the data is on the node"


def _value(value: EnvValue, nodes: int, port: int) -> str:
    if value.secret:
        return MASK
    return shlex.quote(shown(value.value, nodes, port) if value.template else value.value)


def _data(plan: Plan, case: CasePlan) -> Iterator[str]:
    """Where each data set may lie on a node, and where the workload finds it."""
    docker = case.container.runtime is not Runtime.PROCESS
    for place in case.container.data:
        sources = [f"{place.source}{' (ro)' if place.read_only else ''}"] if place.source else []
        if place.mirror:
            sources.append(f"{place.mirror}/{place.name}")
        elif place.cache:
            sources.append(f"the node's cache ({place.cache[:12]}, ro)")
        sources = sources or ["a folder of the case"]
        target = f" → {place.target}" if docker else ""
        origin = _from(plan, f"cases.{case.name}.data.{place.target}")
        yield f"{place.name}: {', else '.join(sources)}{target}{origin}"


def _gpus(plan: Plan, case: CasePlan) -> Iterator[str]:
    """Those that are given on the nodes."""
    gpus = case.gpus
    if gpus is None or plan.parallel == 1 or case.driven:
        return
    among = f" of {fold_numbers(gpus.named)}" if gpus.named else ""
    count = f"all{among}" if gpus.count == ALL else f"? {gpus.count} that are free{among}"
    yield f"{count} on each node   ({gpus.origin})"


def _results(plan: Plan, case: CasePlan) -> Iterator[str]:
    rule, at = case.result, f"cases.{case.name}.result"
    line = f"a row with the {rule.which} 'performance: VALUE METRIC' of"
    origin = _from(plan, f"{at}.which")
    if rule.places:
        first, *others = (place.replace(JOB_NUMBER, "JOB") for place in rule.places)
        yield f"a row for each row of what the script leaves: {first}"
        yield from (f"else {place}" for place in others)
        yield f"else {line} its output{origin}"
    elif rule.multiple_results:
        yield f"a row for each row of {rule.multiple_results}"
    elif rule.require_performance:
        yield f"{line} the logs{origin}"
    else:
        yield "a row; a performance value is not needed"
    yield from _errors(plan, case)


def _errors(plan: Plan, case: CasePlan) -> Iterator[str]:
    """What of the logs makes a failure."""
    rule, at = case.result, f"cases.{case.name}.result"
    if rule.scan:
        texts = ", ".join(map(shlex.quote, rule.patterns)) or "one of the usual texts of errors"
        yield f"a failure when a line of the logs has {texts}{_from(plan, f'{at}.patterns')}"
        if rule.benign:
            yield f"but not for lines with {', '.join(map(shlex.quote, rule.benign))}"
    elif rule.require_performance:
        yield f"logs are not looked through for errors{_from(plan, f'{at}.scan')}"


def _limits_of_time(plan: Plan) -> Iterator[str]:
    timing = plan.timing
    joined, dead = _time(timing.join_timeout_s), _time(timing.dead_after_s)
    yield f"all nodes have joined within {joined}; a node is lost after {dead} of silence"
    yield f"without the controller, workloads end after {_time(timing.lease_s)}"


def _writes(plan: Plan) -> Iterator[str]:
    yield "the run directory: plan.json run.json events.jsonl logs/ results/ perf.csv"
    if plan.output_csv:
        yield f"{plan.output_csv} (rows are appended)"
    if plan.entries:
        yield f"{plan.entries}/perf_super.json perf_super.csv (grow), perf_entry.json perf_entry.csv"


def _assumptions(plan: Plan) -> list[str]:
    """What this text takes for granted."""
    words = []
    slurm = plan.target.kind == "slurm" and not plan.target.slurm.job_id
    if slurm and not plan.target.slurm.nodelist:
        words.append("names of nodes: the scheduler chooses them")
    if slurm and not plan.target.slurm.partition:
        words.append("partition: the cluster's default")
    if slurm and not plan.target.slurm.time:
        words.append("time limit: the partition's default")
    words += [f"image {image.reference}: not looked for" for image in plan.images if not image.archive]
    if plan.origins.get("target.nodes") == "default":
        words.append("1 node: none was asked for (-N COUNT)")
    return words


def _from(plan: Plan, path: str) -> str:
    origin = plan.origins.get(path, "")
    return f"   ({origin})" if origin else ""


def _time(seconds: float) -> str:
    for size, unit in _TIMES:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
