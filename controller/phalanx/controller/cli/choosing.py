"""Which models a run has, and in which images: of a manifest, of cards, or of a build that comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.workflow.context import Context
    from phalanx.controller.workflow.manifest import Manifest
    from phalanx.controller.workflow.models import SelectedModel

IMAGE_KEY = "MAD_CONTAINER_IMAGE"


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run. ``needed``: secrets of a manifest that are to be taken from the environment."""

    context: Context
    models: tuple[SelectedModel, ...]
    notes: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    build: PlannedBuild | None = None


def choose_models(given: Mapping[str, Any], environ: Mapping[str, str], made: Manifest | None) -> Models:
    """What ``--tags`` and ``--manifest-file`` choose. Raises InputError.

    Models that have a Dockerfile and no image are built first: then ``build`` is the plan of that, and they
    stand as if it had been carried out; with ``made``, what it left, they stand as they were built.
    """
    from phalanx.controller.workflow.manifested import models_of
    from phalanx.controller.workflow.models import chosen, locate, project_folder

    project, path = project_folder(environ), given["manifest_file"]
    if path:
        return _of_manifest(given, environ, path, project)
    context = _context(given, environ)
    if not given["tags"]:
        return Models(context, ())
    found = chosen(project, given["tags"])
    models = tuple(locate(project, card) for card in found.cards)
    wanting = [model for model in models if _needs_build(model, given, context)]
    if not wanting:
        return Models(context, models, found.notes)
    build = None if made else _build_first(given, environ, context, wanting)
    manifest = made or _assumed(build)
    built, notes = models_of(manifest, (), context, (project,))
    return Models(context, _in_place(models, wanting, built), (*found.notes, *notes), build=build)


def _of_manifest(given: Mapping[str, Any], environ: Mapping[str, str], path: Path, project: Path) -> Models:
    from phalanx.controller.workflow.layers import Layer
    from phalanx.controller.workflow.manifest import read_manifest
    from phalanx.controller.workflow.manifested import models_of

    manifest = read_manifest(path, str(path))
    context = _context(given, environ, Layer(str(path), manifest.context))
    models, notes = models_of(manifest, given["tags"], context, (project, path.absolute().parent))
    needed = _still_needed(manifest.secrets_required, given, context, environ)
    return Models(context, models, (*manifest.warnings, *notes), needed)


def _context(given: Mapping[str, Any], environ: Mapping[str, str], *below: Any) -> Context:
    from phalanx.controller.workflow.context import load_context

    return load_context(
        given["additional_context"],
        given["additional_context_file"],
        below=below,
        environ=environ,
        unknown_keys=given["unknown_keys"],
    )


def _needs_build(model: SelectedModel, given: Mapping[str, Any], context: Context) -> bool:
    """It has a Dockerfile, and nobody says another image or that it shall have none."""
    said = given["image"] or context.image or context.docker_env.get(IMAGE_KEY)
    own = model.card.env_vars.get("DOCKER_IMAGE_NAME")
    return bool(model.card.dockerfile) and not said and not own and given["runtime"] != "process"


def _build_first(
    given: Mapping[str, Any], environ: Mapping[str, str], context: Context, models: Sequence[SelectedModel]
) -> PlannedBuild:
    """The plan of the build. Raises InputError, also when no image can be made."""
    from phalanx.controller.builds.inputs import gathered_build
    from phalanx.controller.builds.make import make_build_plan
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.workflow.errors import BuildInputError

    inputs = gathered_build(
        [model.card for model in models],
        context,
        environ,
        registry=given["registry"],
        fresh=given["fresh"],
    )
    plan, secrets = make_build_plan(inputs)
    if not plan.builds and not plan.given:
        raise BuildInputError("; ".join(one.error for one in plan.unbuilt))
    # The run says what there is to say of the context.
    silent = replace(plan, warnings=tuple(word for word in plan.warnings if word not in context.warnings))
    return PlannedBuild(inputs, silent, secrets)


def _assumed(build: PlannedBuild | None) -> Manifest:
    """The manifest that a build will leave, as far as a plan can know."""
    from phalanx.controller.builds.manifest import Built, manifest_document
    from phalanx.controller.workflow.manifest import NAME, parse_manifest

    if build is None:
        raise TypeError("neither a build nor what it made")
    plan = build.plan
    return parse_manifest(manifest_document(plan, [Built(one) for one in plan.builds], 0.0), NAME)


def _in_place(
    models: Sequence[SelectedModel], wanting: Sequence[SelectedModel], built: Sequence[SelectedModel]
) -> tuple[SelectedModel, ...]:
    """The models in their order, those that were built in the place of their cards."""
    found: list[SelectedModel] = []
    for model in models:
        if model not in wanting:
            found.append(model)
            continue
        # One that no Dockerfile fits is not among them: the plan of the build says why.
        same = (model.card.name, model.card.args)
        found += [replace(one, card=model.card) for one in built if (one.card.name, one.card.args) == same]
    return tuple(found)


def _still_needed(
    required: Sequence[str], given: Mapping[str, Any], context: Context, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Secrets that a manifest asks for and that nothing else gives: they are taken from the environment.

    Raises InputError for one that is not there either.
    """
    from phalanx.controller.workflow.errors import InputError

    said = {word.partition("=")[0] for word in (*given["secret"], *given["env"])}
    said |= {*context.docker_env, *context.env}
    needed = tuple(name for name in required if name not in said)
    if missing := next((name for name in needed if name not in environ), ""):
        raise InputError(
            f"cannot run {given['manifest_file']}: it needs the secret {missing}, which no manifest holds; "
            f"set the variable {missing}, or say --secret {missing}=file:PATH"
        )
    return needed
