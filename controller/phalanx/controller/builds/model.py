"""The BuildPlan: every image that a build makes, resolved, before anything is touched.

``--dry-run`` prints it, and it is the very object that is carried out. It holds no secret: their values are
beside it, by the names that are marked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BuildArg:
    """A build argument and where its value is from. A secret has ``value`` "" here."""

    name: str
    value: str
    origin: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """One image: of one model, from one Dockerfile, for one architecture or "".

    ``image``: its local name. ``card``: the model's entry as it goes into the manifest. ``folder``: the build
    context, ``dockerfile``: both relative to the project. ``mounts``: secrets that the Dockerfile mounts.
    ``number``: of its model among those of the build, from 0. ``base``: what ``BASE_DOCKER`` says, or "",
    ``bases``: the images it starts from. ``pushed``: its name in
    the registry, "" for not pushed. ``number``: of its model among those that are built, from 0.
    """

    image: str
    model: str
    card: Mapping[str, Any]
    dockerfile: str
    folder: str
    log: str
    args: tuple[BuildArg, ...] = ()
    mounts: tuple[str, ...] = ()
    base: str = ""
    bases: tuple[str, ...] = ()
    gpu_vendor: str = ""
    gpu_architecture: str = ""
    tools: bool = False
    number: int = 0
    registry: str = ""
    pushed: str = ""

    @property
    def recipe(self) -> tuple[Any, ...]:
        """What the image comes from: builds of one recipe are one build with several names."""
        return (self.dockerfile, self.folder, self.args, self.mounts, self.tools)


@dataclass(frozen=True, slots=True)
class GivenImage:
    """An image that is there already, for one model: of ``--use-image``, or of a batch without a build.

    ``kind``: "prebuilt" (key: the model's name) or "batch" (key: a name as if it had been built; ``stem``: of
    which Dockerfile).
    """

    key: str
    image: str
    model: str
    card: Mapping[str, Any]
    kind: str
    registry: str = ""
    stem: str = ""


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """A model for which no image can be made, and why; the others are built all the same."""

    model: str
    error: str


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """All that a build does. Paths are relative to ``project``; that, ``logs`` (the folder of the build logs)
    and ``manifest`` are absolute.

    ``unbuilt``: models that no Dockerfile fits. ``context``: what the manifest says of the additional
    context, ``deployment``: its deployment_config.
    ``secrets_required``: names whose values no file holds, and that a run needs again. ``assumed``: keys of
    the context that nobody has said. ``registry``: where images are pushed, "" for nowhere. ``fresh``: no
    cached layers. ``on_compute``: on a compute node. ``has_tools``: the project has a folder of tools,
    which every build may copy from.
    """

    project: str
    logs: str
    builds: tuple[ImageBuild, ...]
    given: tuple[GivenImage, ...]
    unbuilt: tuple[Unbuilt, ...]
    manifest: str
    context: Mapping[str, Any]
    deployment: Mapping[str, Any]
    credentials_required: tuple[str, ...] = ()
    secrets_required: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    registry: str = ""
    fresh: bool = False
    at_once: int = 1
    on_compute: bool = False
    has_tools: bool = False
    warnings: tuple[str, ...] = ()

    def jobs(self) -> list[tuple[ImageBuild, ...]]:
        """Builds that share a recipe, together, in the order of the plan."""
        found: dict[str, list[ImageBuild]] = {}
        for build in self.builds:
            found.setdefault(repr(build.recipe), []).append(build)
        return [tuple(group) for group in found.values()]
