"""The build that comes before a run: which models need one, and their images before and after it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..workflow.context import Context
from ..workflow.manifest import NAME, Manifest
from ..workflow.models import ModelImage, SelectedModel
from .given import OWN_IMAGE
from .model import BuildPlan, ImageBuild


def needs_build(model: SelectedModel, context: Context, *, image: str, runtime: str) -> bool:
    """It has a Dockerfile, and nobody says another image or that it shall have none."""
    said = image or context.image or context.docker_env.get("MAD_CONTAINER_IMAGE")
    own = model.card.env_vars.get(OWN_IMAGE)
    return bool(model.card.dockerfile) and not said and not own and runtime != "process"


def planned_models(
    models: Sequence[SelectedModel], wanting: Sequence[SelectedModel], plan: BuildPlan
) -> tuple[SelectedModel, ...]:
    """The models in their order, with the images that the build will make: one for each image.

    ``wanting``: those that were given to the build, in its order. One that no Dockerfile fits is left out:
    the plan of the build says why.
    """
    order = {id(model): number for number, model in enumerate(wanting)}
    images: dict[int, list[ImageBuild]] = {}
    for build in plan.builds:
        images.setdefault(build.number, []).append(build)
    found: list[SelectedModel] = []
    for model in models:
        if id(model) in order:
            builds = images.get(order[id(model)], [])
            found += [replace(model, image=_image(build)) for build in builds]
        else:
            found.append(model)
    return tuple(found)


def built_models(models: Sequence[SelectedModel], made: Manifest) -> tuple[SelectedModel, ...]:
    """The same models with their images as they were built. Raises LookupError when one is missing."""
    entries = {entry.key: entry for entry in made.entries}
    return tuple(
        replace(
            model,
            image=replace(
                model.image,
                reference=entries[model.image.key].reference,
                image_id=entries[model.image.key].image_id,
                columns=entries[model.image.key].columns,
            ),
        )
        if model.image is not None
        else model
        for model in models
    )


def _image(build: ImageBuild) -> ModelImage:
    columns: Mapping[str, str] = {"docker_file": build.dockerfile, "base_docker": build.base}
    return ModelImage(
        reference=build.pushed or build.image,
        origin=f"{NAME}: built_images.{build.image}",
        columns=columns,
        gpu_vendor=build.gpu_vendor,
        gpu_architecture=build.gpu_architecture,
        key=build.image,
    )
