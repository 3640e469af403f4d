"""A build on a compute node: a run of one node in which each build is a case. Pure, but for what is named so.

It is the same build as here, with the same Dockerfiles, arguments and contexts; only what the node's client
can do is not known before, so its command line has nothing that a client might lack. The words of the shell
are constants; everything else reaches it as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from phalanx.protocol.messages import ContainerSpec, Runtime

from ..fleet.events import CaseFinished, FileCollected, RankExited, Recorded
from ..plan.inputs import RunInputs
from ..plan.make import plan_of_cases
from ..plan.model import CasePlan, EnvValue, Plan, ResultRule, Share, StepPlan
from ..plan.model_case import case_name
from ..plan.placement import place
from ..plan.secrets import Secret, Secrets
from ..plan.text import checked
from .argv import UNKNOWN, build_argv, push_argv, shown_command, tag_argv
from .credentials import Login
from .dockerfiles import TOOLS_FOLDER
from .manifest import Built
from .model import BuildPlan, ImageBuild
from .registry import login_host

#: Beside the Dockerfiles of the project in what is sent.
TOOLS_DOCKERFILE = "phalanx-tools.Dockerfile"
IID = "image.iid"
PASSWORD = "REGISTRY_PASSWORD"  # noqa: S105 - the name of a variable
_STEPS = ("login", "tools", "build", "tag", "push", "clean")
#: Arguments: base images, ``--``, the build. A base that is only on the node could not be pulled; where every
#: image has a digest, its id (the containerd store), the registry is asked whether it has it.
_BUILD = """exec 2>&1
pull=--pull
while [ "$1" != -- ]; do
    known=$(docker image inspect --format '{{.Id}} {{.RepoDigests}}' "$1" 2>/dev/null) || known=absent
    case $known in
    *' []') pull= ;;
    *"@${known%% *}"*)
        docker manifest inspect "$1" >/dev/null 2>&1 || {
            pull=
            echo "$1 is taken as it is here: its registry does not have it, or does not answer"
        }
        ;;
    esac
    shift
done
shift 3
exec docker build $pull "$@"
"""
_LOGIN = """exec 2>&1
printf %s "$REGISTRY_PASSWORD" | docker login --username "$1" --password-stdin ${2:+"$2"}
"""
_SAME = 'exec 2>&1\nexec "$@"\n'
#: Whether there was anything to remove says nothing of the build.
_FORGET = 'docker image rm "$1" >/dev/null 2>&1 || true\n'
#: What a login leaves is in the case's own folder, which goes with it.
_PRIVATE = 'DOCKER_CONFIG="$PWD/.docker"\nexport DOCKER_CONFIG\n'


def compute_plan(
    inputs: RunInputs, build: BuildPlan, secrets: Secrets, login: Login | None, folder: str
) -> tuple[Plan, dict[str, ImageBuild]]:
    """The run that carries a build out, and the first image of each of its cases. Raises InputError.

    ``folder``: what is sent, see ``staging``; ``login``: for the registry of the build. ``secrets`` are only
    looked for in the command line that is recorded.
    """
    placement = place(inputs)
    taken: set[str] = set()
    cases: list[CasePlan] = []
    first: dict[str, ImageBuild] = {}
    for builds in build.jobs():
        name = case_name(builds[0].image, taken)
        first[name] = builds[0]
        cases.append(_case(name, build, builds, login, folder, tools_image(inputs.run_id)))
    hidden = _with_login(secrets, login)
    plan = plan_of_cases(inputs, placement, tuple(cases), (), "workflow", "", hidden)
    return checked(plan, hidden), first


def tools_image(run_id: str) -> str:
    """What the folder of tools is called as an image, for as long as a run builds."""
    return f"phalanx-tools:{run_id.lower()}"


def secrets_of(secrets: Secrets, login: Login | None) -> dict[str, str]:
    """The values that the run's cases need, by name."""
    return _with_login(secrets, login).values_by_name()


def _with_login(secrets: Secrets, login: Login | None) -> Secrets:
    password = {PASSWORD: Secret(login.password, login.origin)} if login else {}
    return Secrets({**secrets, **password})


def _case(
    name: str, plan: BuildPlan, builds: Sequence[ImageBuild], login: Login | None, folder: str, tools: str
) -> CasePlan:
    first = builds[0]
    words = _PRIVATE if login else ""
    steps: list[StepPlan] = []

    def step(what: str, script: str, *arguments: str, always: bool = False) -> None:
        argv = ("sh", "-c", words + script, "sh", *arguments)
        steps.append(StepPlan(what, argv, "node", always=always))

    if login:
        step("login", _LOGIN, login.username, login_host(plan.registry))
    if first.tools:
        step(
            "tools", _SAME, "docker", "build", "-t", tools, "-f", f"./{TOOLS_DOCKERFILE}", f"./{TOOLS_FOLDER}"
        )
    argv = build_argv(UNKNOWN, builds, fresh=plan.fresh, pull=False, iidfile=IID)
    step("build", _BUILD, *first.bases, *([tools] if first.tools else []), "--", *argv)
    pushed = [build for build in builds if build.pushed]
    for number, build in enumerate(pushed, 1):
        which = f"-{number}" if len(pushed) > 1 else ""
        step(f"tag{which}", _SAME, *tag_argv(build.image, build.pushed))
        step(f"push{which}", _SAME, *push_argv(build.pushed))
    if first.tools:
        step("clean", _FORGET, tools, always=True)
    env = {arg.name: EnvValue("", arg.origin, secret=True) for arg in first.args if arg.secret}
    env |= {mount: EnvValue("", "the Dockerfile", secret=True) for mount in first.mounts}
    if first.mounts:
        env["DOCKER_BUILDKIT"] = EnvValue("1", "the Dockerfile mounts secrets")
    if login:
        env[PASSWORD] = EnvValue("", login.origin, secret=True)
    return CasePlan(
        name=name,
        steps=tuple(steps),
        container=ContainerSpec(Runtime.PROCESS, network=""),
        env=env,
        workspace=(Share(folder),),
        collect=(IID,),
        result=ResultRule(require_performance=False),
        columns={"model": first.model},
    )


def ids_kept(records: Iterable[Recorded]) -> dict[str, str]:
    """Where, below the run's directory, the ids lie that builders have left: by case."""
    events = (record.event for record in records)
    return {
        event.case: event.kept
        for event in events
        if isinstance(event, FileCollected) and event.path == IID and not event.error
    }


def step_order(step: str) -> tuple[int, str]:
    """Sorts the steps of a case as they come one after another."""
    stem = step.partition("-")[0]
    return (_STEPS.index(stem) if stem in _STEPS else len(_STEPS), step)


def outcomes(
    build: BuildPlan, first: Mapping[str, ImageBuild], records: Iterable[Recorded], ids: Mapping[str, str]
) -> list[Built]:
    """What became of every image, from the events of the run and the ids that came back, by case."""
    status: dict[str, str] = {}
    exits: dict[str, dict[str, RankExited]] = {name: {} for name in first}
    for record in records:
        event = record.event
        if isinstance(event, RankExited) and event.case in exits:
            exits[event.case][event.step] = event
        elif isinstance(event, CaseFinished) and event.case in first:
            status[event.case] = event.reason
    case_of = {image.image: name for name, image in first.items()}
    found: dict[str, Built] = {}
    for builds in build.jobs():
        case = case_of[builds[0].image]
        for number, one in enumerate(builds, 1):
            which = f"-{number}" if len(builds) > 1 else ""
            found[one.image] = _built(
                build, builds, one, exits[case], which, ids.get(case, ""), status.get(case, "")
            )
    return [found[one.image] for one in build.builds]


def _built(
    plan: BuildPlan,
    builds: Sequence[ImageBuild],
    one: ImageBuild,
    exits: Mapping[str, RankExited],
    which: str,
    image_id: str,
    reason: str,
) -> Built:
    ended = exits.get("build")
    command = shown_command(UNKNOWN, builds, fresh=plan.fresh, pull=True)
    if ended is None or ended.status or ended.cause != "exited" or not image_id:
        why = f"{reason or 'the run ended before it'}; the whole log is {one.log}"
        return Built(one, command=command, error=why)
    built = Built(one, image_id, ended.seconds, "", command, node=ended.node)
    if not one.pushed:
        return built
    steps = (exits.get(f"tag{which}"), exits.get(f"push{which}"))
    if all(step is not None and not step.status and step.cause == "exited" for step in steps):
        return built
    return Built(
        one, image_id, ended.seconds, "", command, push_error=reason or "not pushed", node=ended.node
    )
