"""The container of a case: image, mounts, devices and limits, typed and checked.

Madengine runs every container as root with SYS_ADMIN and the fuse device. Here a container gets what its
workload is known to need and no more: GPU devices with what their drivers ask for, the host's network (ranks
meet there), and what the user names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from phalanx.protocol.messages import ContainerSpec, Limits, Mount, Runtime

from ..workflow.card import ModelCard
from ..workflow.errors import InputError, did_you_mean
from ..workflow.models import SelectedModel
from ..workflow.placeholders import resolve_shown
from . import quantities
from .allowances import allowed, refuse_unallowed
from .docker_options import DockerOptions, parse_docker_options
from .gpus import Gpus, with_gpus
from .image import checked_reference
from .inputs import RunInputs
from .mounts import checked, device_option, distinct, mount_option

RUNTIMES = tuple(runtime.value for runtime in Runtime)


def image_of(inputs: RunInputs, model: SelectedModel | None) -> tuple[str, str]:
    """The image of a case and its origin; ("", "") for none. Raises InputError."""
    context, card = inputs.context, model.card if model else None
    of_manifest = model.image if model else None
    for reference, origin in (
        (inputs.image, "--image"),
        (context.image, context.origin("MAD_CONTAINER_IMAGE")),
        (
            context.docker_env.get("MAD_CONTAINER_IMAGE", ""),
            context.origin("docker_env_vars.MAD_CONTAINER_IMAGE"),
        ),
        (of_manifest.reference, of_manifest.origin) if of_manifest else ("", ""),
        (_card_image(card), f"{card.where}: env_vars.DOCKER_IMAGE_NAME" if card else ""),
    ):
        if reference:
            return checked_reference(resolve_shown(reference, inputs.environ, origin), origin), origin
    return "", ""


def _card_image(card: ModelCard | None) -> str:
    return card.env_vars.get("DOCKER_IMAGE_NAME", "") if card else ""


def runtime_of(inputs: RunInputs, image: str, image_origin: str) -> tuple[Runtime, str]:
    """What the case runs in and why. Raises InputError."""
    said = inputs.runtime
    if said and said not in RUNTIMES:
        raise InputError(
            f"cannot use --runtime {said}: expected {' or '.join(RUNTIMES)}{did_you_mean(said, RUNTIMES)}"
        )
    if said == Runtime.DOCKER.value and not image:
        raise InputError("cannot use --runtime docker: no image is named; say --image NAME")
    if said == Runtime.PROCESS.value and inputs.image:
        raise InputError("cannot use --image with --runtime process: a process has no image")
    if said:
        return Runtime(said), "--runtime"
    return (Runtime.DOCKER, image_origin) if image else (Runtime.PROCESS, "default: no image is named")


def container_of(
    inputs: RunInputs, card: ModelCard | None, runtime: Runtime, image: str, gpus: Gpus
) -> ContainerSpec:
    """The whole specification. Raises InputError; for a process, when something asks for a container."""
    if runtime is Runtime.PROCESS:
        _refuse_container_options(inputs)
        return ContainerSpec(Runtime.PROCESS, network="", limits=_limits(inputs, DockerOptions()))
    options, origin = _options(card)
    allow = tuple(allowed(inputs))
    spec = ContainerSpec(
        runtime=Runtime.DOCKER,
        image=image,
        user=options.user,
        network=options.network or "host",
        ipc=options.ipc,
        mounts=options.mounts,
        devices=options.devices,
        cap_add=options.cap_add,
        security_opt=options.security_opt,
        group_add=options.group_add,
        gpus=options.gpus,
        limits=_limits(inputs, options),
        allow=allow,
        privileged=options.privileged,
        pid=options.pid,
        uts=options.uts,
        userns=options.userns,
        cap_drop=options.cap_drop,
        hostname=options.hostname,
        extra_hosts=options.extra_hosts,
        tmpfs=options.tmpfs,
        read_only=options.read_only,
        engine_runtime=options.engine_runtime,
    )
    refuse_unallowed(spec, origin)
    devices = tuple(device_option(text, "--device") for text in inputs.devices)
    refuse_unallowed(ContainerSpec(Runtime.DOCKER, devices=devices, allow=allow), "--device")
    layers = _layers(inputs, options, origin)
    for mount, where in layers:
        refuse_unallowed(ContainerSpec(Runtime.DOCKER, mounts=(mount,), allow=allow), where)
    mounts, _ = distinct(layers)
    _refuse_two_filesystems(mounts, spec, origin)
    every = tuple(dict.fromkeys((*options.devices, *devices)))
    return with_gpus(replace(spec, mounts=mounts, devices=every), gpus)


def mount_warnings(inputs: RunInputs, cards: Iterable[ModelCard | None]) -> list[str]:
    """Which mounts go, because a later layer has another at their place. Raises InputError."""
    return [
        warning
        for options, origin in map(_options, cards)
        for warning in distinct(_layers(inputs, options, origin))[1]
    ]


def _options(card: ModelCard | None) -> tuple[DockerOptions, str]:
    if card is None:
        return DockerOptions(), ""
    origin = f"{card.where}: additional_docker_run_options"
    return parse_docker_options(card.additional_docker_run_options, origin), origin


def _refuse_two_filesystems(mounts: tuple[Mount, ...], spec: ContainerSpec, origin: str) -> None:
    taken = {mount.target: f"{mount.source} and a tmpfs" for mount in mounts}
    for one in spec.tmpfs:
        if one.target in taken:
            raise InputError(
                f"cannot use {origin}: {one.target} is the target of {taken[one.target]}; leave one out"
            )
        taken[one.target] = "two tmpfs"


def _layers(inputs: RunInputs, options: DockerOptions, origin: str) -> list[tuple[Mount, str]]:
    """Mounts with their origins: the card's, then the context's, then the command line's."""
    found = [(mount, origin) for mount in options.mounts]
    for target, source in inputs.context.mounts.items():
        where = inputs.context.origin(f"docker_mounts.{target}")
        text, colon, mode = source.rpartition(":")
        read_only = bool(colon) and mode == "ro"
        found.append((checked(Mount(text if read_only else source, target, read_only), where), where))
    found += [(mount_option(text, "-v"), "-v") for text in inputs.mounts]
    return found


def _limits(inputs: RunInputs, options: DockerOptions) -> Limits:
    """The card's options under the context's under the command line's."""
    base = options.limits
    cpu_origin = inputs.context.origin("docker_cpus")
    cpuset = (
        quantities.cpuset(inputs.context.docker_cpus, cpu_origin)
        if inputs.context.docker_cpus
        else base.cpuset
    )
    limits = {one.name: one for one in base.ulimits}
    limits.update({one.name: one for one in (quantities.ulimit(text, "--ulimit") for text in inputs.ulimits)})
    return Limits(
        memory_bytes=quantities.size(inputs.memory, "--memory") if inputs.memory else base.memory_bytes,
        cpus=quantities.cpus(inputs.cpus, "--cpus") if inputs.cpus else base.cpus,
        cpuset=quantities.cpuset(inputs.cpuset, "--cpuset-cpus") if inputs.cpuset else cpuset,
        pids=base.pids,
        shm_bytes=quantities.size(inputs.shm_size, "--shm-size") if inputs.shm_size else base.shm_bytes,
        ulimits=tuple(limits.values()),
    )


def _refuse_container_options(inputs: RunInputs) -> None:
    """What only a container can do is refused, not dropped."""
    asked = (
        ("-v", inputs.mounts), ("--device", inputs.devices), ("--shm-size", inputs.shm_size),
        ("--memory", inputs.memory), ("--cpus", inputs.cpus), ("--cpuset-cpus", inputs.cpuset),
        ("--image-archive", inputs.image_archive),
    )  # fmt: skip
    for option, value in asked:
        if value:
            raise InputError(f"cannot use {option} without a container: name an image with --image")
    if inputs.context.mounts:
        origin = inputs.context.origin("docker_mounts")
        raise InputError(f"cannot use {origin} without a container: name an image with --image")
