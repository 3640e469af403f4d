"""Which models a run has, and in which images: of a manifest, of cards, or of a build that comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.workflow.context import Context
    from phalanx.controller.workflow.models import SelectedModel


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run. ``needed``: secrets of a manifest that are to be taken from the environment."""

    context: Context
    models: tuple[SelectedModel, ...]
    notes: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    build: PlannedBuild | None = None


def choose_models(given: Mapping[str, Any], environ: Mapping[str, str]) -> Models:
    """What ``--tags`` and ``--manifest-file`` choose. Raises InputError.

    Models that have a Dockerfile and no image are built first: then ``build`` is the plan of that, and they
    stand as if it had been carried out.
    """
    from phalanx.controller.builds.for_run import needs_build, planned_models
    from phalanx.controller.workflow.models import chosen, locate, project_folder

    project, path = project_folder(environ), given["manifest_file"]
    if path:
        return _of_manifest(given, environ, path, project)
    context = _context(given, environ)
    if not given["tags"]:
        return Models(context, ())
    found = chosen(project, given["tags"])
    models = tuple(locate(project, card) for card in found.cards)
    runtime = given["runtime"] or ""
    wanting = [
        model for model in models if needs_build(model, context, image=given["image"], runtime=runtime)
    ]
    if not wanting:
        return Models(context, models, found.notes)
    build = _build_first(given, environ, context, wanting)
    return Models(context, planned_models(models, wanting, build.plan), found.notes, build=build)


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


def _build_first(
    given: Mapping[str, Any], environ: Mapping[str, str], context: Context, models: Sequence[SelectedModel]
) -> PlannedBuild:
    """The plan of the build. Raises InputError, also when no image can be made."""
    from phalanx.controller.builds.inputs import architectures, gathered_build
    from phalanx.controller.builds.make import make_build_plan
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.workflow.errors import BuildInputError, InputError

    inputs = gathered_build(
        [model.card for model in models],
        context,
        environ,
        archs=architectures(given["target_archs"]),
        registry=given["registry"],
        fresh=given["fresh"],
    )
    if len(inputs.archs) > 1:
        raise InputError(
            f"cannot run models built for {', '.join(inputs.archs)} at once: name one, or build first and "
            "run what is built: phalanx build, phalanx run -m build_manifest.json"
        )
    plan, secrets = make_build_plan(inputs)
    if not plan.builds and not plan.given:
        raise BuildInputError("; ".join(one.error for one in plan.unbuilt))
    # The run says what there is to say of the context.
    silent = replace(plan, warnings=tuple(word for word in plan.warnings if word not in context.warnings))
    return PlannedBuild(inputs, silent, secrets)


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
