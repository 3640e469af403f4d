"""Inputs become a BuildPlan: pure functions. Whatever is wrong is said here, before an engine is asked.

A model without a Dockerfile that fits is an error that says why each candidate does not: a build that makes
nothing is no success. Secrets are given only to Dockerfiles that ask for them, by ARG or by a mount: what a
Dockerfile does not name it could not read anyway, and every value handed over is one more that could leak.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath, PurePosixPath
from typing import Any

from ..plan.env import Environment
from ..plan.image import checked_reference
from ..plan.secrets import Secret, Secrets
from ..plan.text import check_secrets
from ..workflow.card import ModelCard
from ..workflow.context import build_defaults
from ..workflow.errors import DiscoveryError, InputError
from ..workflow.manifested import ARCH
from ..workflow.place import inside
from .credentials import missing_credentials
from .dockerfiles import BASE, TOOLS_FOLDER, Dockerfile, fits
from .entries import entry
from .given import batch_images, distinct_keys, given_images, images_differ
from .inputs import BatchEntry, BuildInputs
from .model import BuildArg, BuildPlan, ImageBuild, Unbuilt
from .naming import checked_pushed, checked_registry, image_name, log_name, numbered, pushed_name
from .recorded import assumed, recorded_context, recorded_deployment, secrets_required

MARK_OF_SECRETS = "MAD_SECRETS"
_ARCH = re.compile(r"[a-z0-9]+(?:[_.-][a-z0-9]+)*")


def make_build_plan(inputs: BuildInputs) -> tuple[BuildPlan, Secrets]:
    """The plan of ``phalanx build`` and the values of its secrets. Raises InputError."""
    if not inputs.cards and not inputs.batch:
        raise DiscoveryError("cannot build: no model is chosen; say --tags NAME, or --tags all")
    registry = checked_registry(inputs.registry, "--registry") if inputs.registry else ""
    given, rest = given_images(inputs, registry)
    warnings: list[str] = []
    secrets: dict[str, Secret] = {}
    builds: list[ImageBuild] = []
    unbuilt: list[Unbuilt] = []
    archs = _archs(inputs, warnings)
    _of_context(inputs)  # what is wrong for all models is not a failure of each
    numbers = {id(card): number for number, card in enumerate(inputs.cards)}
    for card in rest:
        try:
            builds += _of_model(inputs, card, numbers[id(card)], archs, registry, warnings, secrets)
        except InputError as error:
            unbuilt.append(Unbuilt(card.name, str(error)))
    builds = _distinct(builds)
    _refuse_same_names(builds)
    stems = {card.name: [one.stem for one in _fitting(inputs, card)] or [card.name] for card in inputs.others}
    given += batch_images(inputs, stems, registry)
    if inputs.batch and not any(line.build_new for line in inputs.batch):
        raise DiscoveryError("cannot build: no model of the batch manifest has build_new")
    if differ := images_differ(inputs):
        warnings.append(differ)
    for card in inputs.cards:
        warnings += card.warnings()
    check_secrets(Secrets(secrets))
    return BuildPlan(
        project=inputs.project,
        logs=inputs.cwd,
        builds=tuple(builds),
        given=tuple(distinct_keys(given, (build.image for build in builds))),
        unbuilt=tuple(unbuilt),
        has_tools=inputs.has_tools,
        manifest=str(PurePath(inputs.cwd, inputs.manifest)),
        context=recorded_context(inputs.context),
        deployment=recorded_deployment(inputs.context, [] if builds else [one.card for one in given]),
        credentials_required=tuple(dict.fromkeys(card.cred for card in inputs.cards if card.cred)),
        secrets_required=secrets_required(inputs.context),
        assumed=tuple(assumed(inputs.context)),
        registry=registry,
        fresh=inputs.fresh,
        at_once=inputs.at_once,
        on_compute=inputs.on_compute,
        warnings=tuple(dict.fromkeys((*inputs.notes, *inputs.context.warnings, *warnings))),
    ), Secrets(secrets)


def facts_of(inputs: BuildInputs) -> dict[str, Any]:
    """What a CONTEXT line is compared with."""
    defaults = build_defaults(inputs.context)
    said = {**inputs.facts, **inputs.context.document}
    return {**said, "gpu_vendor": defaults.gpu_vendor, "guest_os": defaults.guest_os}


def _of_model(
    inputs: BuildInputs,
    card: ModelCard,
    number: int,
    archs: tuple[str, ...],
    registry: str,
    warnings: list[str],
    secrets: dict[str, Secret],
) -> list[ImageBuild]:
    """The images of one model: one for each Dockerfile that fits, times architectures. Raises InputError."""
    fitting = _fitting(inputs, card)
    if not fitting:
        raise InputError(f"cannot build {card.where}: {_why_none(inputs, card)}")
    warnings += [
        f"{one.path}: {one.passed_over}, and is not built"
        for one in inputs.dockerfiles[card.dockerfile]
        if one.header is None
    ]
    folder = _folder(card)
    return [
        replace(_image(inputs, card, dockerfile, folder, arch, registry, warnings, secrets), number=number)
        for dockerfile in fitting
        for arch in archs
    ]


def _fitting(inputs: BuildInputs, card: ModelCard) -> list[Dockerfile]:
    facts, found = facts_of(inputs), inputs.dockerfiles.get(card.dockerfile, ())
    return [one for one in found if one.header is not None and fits(one.header, facts)]


def _why_none(inputs: BuildInputs, card: ModelCard) -> str:
    """Why no Dockerfile of the model fits, when none does."""
    if not card.dockerfile:
        return "it names no dockerfile; add one, or say --use-image IMAGE"
    if card.dockerfile in inputs.unreadable:
        return inputs.unreadable[card.dockerfile]
    found, facts = inputs.dockerfiles[card.dockerfile], facts_of(inputs)
    if not found:
        return (
            f"there is no file {card.dockerfile}.*; write {card.dockerfile}.ubuntu.amd.Dockerfile or the like"
        )
    words = []
    for one in found:
        if one.header is None:
            words.append(f"{one.path}: {one.passed_over}")
            continue
        differs = [
            f"{key} {value!r}, not {facts[key]!r}"
            for key, value in one.header.items()
            if key in facts and facts[key] != value
        ]
        words.append(f"{one.path} is for {', '.join(differs)}")
    return (
        f"no Dockerfile fits the context: {'; '.join(words)}; say what to build for in --additional-context"
    )


def _folder(card: ModelCard) -> str:
    """The build context: what the card says, ``.`` for primus (madengine's rule), else ``docker``."""
    if not card.dockercontext:
        return "." if "primus" in card.dockerfile.lower() else "docker"
    relative = inside(PurePosixPath(), card.dockercontext)
    if relative is None:
        raise InputError(
            f"cannot build {card.where}: dockercontext {card.dockercontext!r} leaves the project's folder"
        )
    return str(relative)


def _archs(inputs: BuildInputs, warnings: list[str]) -> tuple[str, ...]:
    for arch in inputs.archs:
        if not _ARCH.fullmatch(arch):
            raise InputError(
                f"cannot use --target-archs {arch!r}: that is no architecture, such as gfx942 (part of "
                "image names: small letters and digits)"
            )
    if inputs.archs and ARCH in inputs.context.build_args:
        origin = inputs.context.origin(f"docker_build_arg.{ARCH}")
        warnings.append(f"--target-archs is not used: {origin} says the architecture")
        return ("",)
    return inputs.archs or ("",)


def _image(
    inputs: BuildInputs,
    card: ModelCard,
    dockerfile: Dockerfile,
    folder: str,
    arch: str,
    registry: str,
    warnings: list[str],
    secrets: dict[str, Secret],
) -> ImageBuild:
    image = image_name(card.name, dockerfile.stem, arch, card.where)
    args, mounts = _arguments(inputs, card, dockerfile, arch, warnings, secrets)
    if dockerfile.needs_tools and not inputs.has_tools:
        raise InputError(
            f"cannot build {card.where}: {dockerfile.path} copies from the build context 'tools', "
            f"and the project has no folder {TOOLS_FOLDER}"
        )
    values = {one.name: one.value for one in args}
    return ImageBuild(
        image=image,
        model=card.name,
        card=entry(card),
        dockerfile=dockerfile.path,
        folder=folder,
        log=log_name(card.name, dockerfile.stem, arch),
        args=args,
        mounts=mounts,
        bases=dockerfile.starts_from(values),
        base=values.get(BASE) or dockerfile.arguments.get(BASE) or "",
        gpu_vendor=dockerfile.gpu_vendor,
        gpu_architecture=arch,
        tools=dockerfile.needs_tools,
        registry=_line(inputs, card).registry or registry,
        pushed=_pushed(inputs, card, registry, image),
    )


def _pushed(inputs: BuildInputs, card: ModelCard, registry: str, image: str) -> str:
    if not registry:
        return ""
    if said := _line(inputs, card).registry_image:
        return checked_reference(said, f"--batch-manifest: {card.name}: registry_image")
    name = pushed_name(registry, inputs.credentials.repository(registry), image)
    return checked_pushed(checked_reference(name, f"--registry: {card.name}"), card.where)


def _line(inputs: BuildInputs, card: ModelCard) -> BatchEntry:
    return next((line for line in inputs.batch if line.model == card.name), BatchEntry(card.name))


def _arguments(
    inputs: BuildInputs,
    card: ModelCard,
    dockerfile: Dockerfile,
    arch: str,
    warnings: list[str],
    secrets: dict[str, Secret],
) -> tuple[tuple[BuildArg, ...], tuple[str, ...]]:
    """Build arguments and mounted secrets: the context's, the credentials' of the card, the environment's."""
    found, hidden = _values(inputs, card, dockerfile, arch, warnings).finished()
    args, mounts = [], []
    for name, one in found.items():
        if not one.secret:
            args.append(BuildArg(name, one.value, one.origin))
        elif name in dockerfile.secrets:
            mounts.append(name)
        elif name in dockerfile.arguments:
            args.append(BuildArg(name, "", one.origin, secret=True))
            warnings.append(
                f"{dockerfile.path}: ARG {name}: its value stays readable in the image's history; "
                f"use RUN --mount=type=secret,id={name}"
            )
    given = {*mounts, *(arg.name for arg in args if arg.secret)}
    secrets.update({name: hidden[name] for name in given if name not in secrets})
    warnings += [
        f"{dockerfile.path}: it mounts the secret {name}, which is not given"
        for name in sorted(dockerfile.secrets - set(mounts))
    ]
    return tuple(args), tuple(mounts)


def _values(
    inputs: BuildInputs, card: ModelCard, dockerfile: Dockerfile, arch: str, warnings: list[str]
) -> Environment:
    """All that a build could be given, with its origin."""
    values = _of_context(inputs)
    for name, secret in _credentials(inputs, card, dockerfile, warnings):
        values.put_secret(name, secret)
    for name, value in inputs.environ.items():
        if MARK_OF_SECRETS in name and name not in values.values:
            values.put_secret(name, Secret(value, f"env:{name}"))
    if arch:
        values.put(ARCH, arch, "--target-archs")
    elif ARCH in dockerfile.arguments and not dockerfile.arguments[ARCH] and ARCH not in values.values:
        warnings.append(
            f"{dockerfile.path}: ARG {ARCH} has no default and no value is given; "
            "say --target-archs gfx942 or the like"
        )
    return values


def _of_context(inputs: BuildInputs) -> Environment:
    """The build arguments of the context. Raises InputError."""
    values = Environment(inputs.environ, of_ranks=False)
    for name, value in inputs.context.build_args.items():
        values.put(name, value, inputs.context.origin(f"docker_build_arg.{name}"))
    return values


def _credentials(
    inputs: BuildInputs, card: ModelCard, dockerfile: Dockerfile, warnings: list[str]
) -> list[tuple[str, Secret]]:
    """Those of the card. That there are none is only wrong where the Dockerfile asks for one of them."""
    if not card.cred:
        return []
    if card.cred in inputs.credentials.entries:
        return list(inputs.credentials.arguments(card.cred))
    if any(name.startswith(f"{card.cred}_") for name in (*dockerfile.arguments, *dockerfile.secrets)):
        raise InputError(f"cannot build {card.where}: {missing_credentials(card.cred)}")
    warnings.append(f"{card.where}: cred: {missing_credentials(card.cred)}")
    return []


def _refuse_same_names(builds: list[ImageBuild]) -> None:
    """Two images under one name in a registry: the second would replace the first."""
    by_name: dict[str, str] = {}
    for build in builds:
        if build.pushed and by_name.setdefault(build.pushed, build.image) != build.image:
            raise InputError(
                f"cannot push {by_name[build.pushed]} and {build.image} both as {build.pushed}: "
                "registry_image is one name, and this model has several images; leave registry_image out"
            )


def _distinct(builds: list[ImageBuild]) -> list[ImageBuild]:
    """A model that is chosen with different arguments has an image for each: one recipe, several names."""
    taken: set[str] = set()
    found: list[ImageBuild] = []
    for build in builds:
        number = numbered(build.image, taken)
        if number > 1:
            stem = build.log.removesuffix(".build.live.log")
            build = replace(
                build,
                image=f"{build.image}_{number}",
                log=f"{stem}_{number}.build.live.log",
                pushed=build.pushed and f"{build.pushed}_{number}",
            )
        found.append(build)
    return found
