"""Making a case's container: what is checked before, laid out beside it, and said when the engine refuses."""

from __future__ import annotations

import dataclasses
import os
import re
import resource
from collections.abc import Mapping
from pathlib import Path

from phalanx.agent.runtimes import policy, supervisor
from phalanx.agent.runtimes.base import CasePlaces, RuntimeUnavailable
from phalanx.agent.runtimes.engine import EngineError
from phalanx.agent.runtimes.process_limits import limit_words
from phalanx.protocol.messages import Allowance, ContainerSpec, Ulimit


def check(
    spec: ContainerSpec,
    engine_kind: str,
    forbidden: Mapping[Allowance, str],
    ceilings: Mapping[str, int],
) -> None:
    """Refuse what may not or cannot be had. Raises RuntimeUnavailable with every reason.

    ``forbidden``: what this node gives nobody. ``ceilings``: the most that its engine can give of a limit.
    """
    # a link to the engine's socket is the engine's socket, one below /dev/shm to a disk is the disk
    resolved = dataclasses.replace(
        spec,
        mounts=tuple(
            dataclasses.replace(one, source=os.path.realpath(one.source))
            for one in spec.mounts
            if one.source.startswith("/")
        ),
        devices=tuple(
            dataclasses.replace(one, source=os.path.realpath(one.source))
            for one in spec.devices
            if one.source.startswith("/")
        ),
    )
    words = policy.refusals(spec, forbidden) + policy.refusals(resolved, forbidden)
    words += _above(spec.limits.ulimits, ceilings)
    if spec.gpus and engine_kind == "podman":
        words.append("gpus: podman ignores them silently on this interface; name the devices instead")
    if words:
        raise RuntimeUnavailable("; ".join(dict.fromkeys(words)))
    for mount in spec.mounts:
        if not Path(mount.source).exists():
            raise RuntimeUnavailable(
                f"mount {mount.source}:{mount.target}: {mount.source} is not on this node"
            )


def _above(asked: tuple[Ulimit, ...], ceilings: Mapping[str, int]) -> list[str]:
    """Words for each limit that the engine cannot give; both numbers are in them."""
    words = []
    for limit in asked:
        most = ceilings.get(limit.name, -1)
        if most != -1 and (limit.hard == -1 or limit.hard > most):
            words.append(
                f"ulimit {limit.name}={limit_words(limit.hard)}: this node's engine can give at most {most}, "
                "its hard limit; ask for no more than that"
            )
    return words


def with_engine_defaults(spec: ContainerSpec, engine_kind: str, hard: dict[str, int]) -> ContainerSpec:
    """The specification as this kind of engine must be told it; ``hard``: the engine's own hard limits.

    podman adds limits of its own to any container that asks for one (nofile and nproc of 1048576), which a
    node that allows less refuses at the start; what the node allows is asked for instead.
    """
    asked = spec.limits.ulimits
    if engine_kind != "podman" or not asked:
        return spec
    missing = {"nofile", "nproc"} - {limit.name for limit in asked}
    added = tuple(Ulimit(name, hard.get(name, -1), hard.get(name, -1)) for name in sorted(missing))
    return dataclasses.replace(spec, limits=dataclasses.replace(spec.limits, ulimits=asked + added))


def make_directories(places: CasePlaces) -> Path:
    """Make the case's directories and the control directory with the scripts. Raises OSError."""
    for directory in (places.work, places.results, places.spool):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    control = places.spool.parent / "control-docker"
    control.mkdir(mode=0o755, exist_ok=True)
    for name in ("spool", "results"):
        (control / name).mkdir(mode=0o755, exist_ok=True)  # where the container mounts the real ones
    for name, text in (
        ("supervise", supervisor.SUPERVISE),
        ("step", supervisor.STEP),
        (supervisor.REQUESTS, ""),
    ):
        (control / name).write_text(text)
        (control / name).chmod(0o644)
    # whatever the umask was: the container's user, root of a user namespace too, must be able to read it
    for directory in (control, control / "spool", control / "results"):
        directory.chmod(0o755)
    return control


def explained(error: EngineError, spec: ContainerSpec, hard: dict[str, int]) -> RuntimeUnavailable:
    """The engine's refusal to create or start, with what a person needs to know added."""
    words = str(error)
    lower = words.lower()
    if "rlimit" in lower and "not permitted" in lower:
        return RuntimeUnavailable(f"{_ulimit_words(words, spec, hard)} (the engine says: {words})")
    if "apply caps" in lower and "not permitted" in lower:
        return RuntimeUnavailable(
            "this node's engine has not every capability itself, and can give none that it has not: "
            f"--privileged and --cap-add ALL cannot be had here (the engine says: {words})"
        )
    if "/bin/sh" in words and ("no such file" in lower or "not found" in lower or "executable file" in lower):
        return RuntimeUnavailable(
            f"image {spec.image or spec.image_id} has no /bin/sh: phalanx needs a shell with sleep, cat, mv "
            "and rm in an image to hold a container by its lease; add busybox or coreutils to it"
        )
    if error.status == 404 and "no such image" in lower:
        return RuntimeUnavailable(f"image {spec.image} ({spec.image_id[:19]}) is not on this node")
    if spec.gpus and "could not select device driver" in lower:
        return RuntimeUnavailable(
            f"gpus={spec.gpus}: this node's engine has no driver for them; "
            f"install its container toolkit ({words})"
        )
    return RuntimeUnavailable(words, *error.args[1:])


def _ulimit_words(words: str, spec: ContainerSpec, hard: dict[str, int]) -> str:
    number = re.search(r"rlimits? type (\d+)", words)
    numbers = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
    named = numbers.get(int(number[1]), "").removeprefix("RLIMIT_").lower() if number else ""
    asked = {limit.name: limit.hard for limit in spec.limits.ulimits}
    names = [named] if named in asked else list(asked)
    parts = [
        f"ulimit {name}={limit_words(asked[name])} "
        f"(the node's hard limit is {limit_words(hard.get(name, -1))})"
        for name in names
    ]
    return f"the engine may not set {', '.join(parts) or 'its default ulimits'}; ask for no more than that"


def ended_at_once(image: str, code: int) -> str:
    """Words for a container whose supervisor did not stay."""
    if code == supervisor.UNUSABLE:
        return f"image {image} has no sleep(1): phalanx needs sh, sleep, cat, mv and rm in an image"
    if code == supervisor.UNTOLD:
        return (
            "pid host: this node's engine gives containers no control group of their own, so their processes "
            "cannot be told from the node's; leave out --pid=host here"
        )
    return f"the container ended at once with {code}: /bin/sh of image {image} does not work on this node"
