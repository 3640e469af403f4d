"""From a manifest to models to run: which of its images are for this run, and where their scripts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .context import Context
from .errors import InputError
from .manifest import Manifest, ManifestEntry
from .models import ModelImage, SelectedModel, locate
from .tags import choose

ARCH = "MAD_SYSTEM_GPU_ARCHITECTURE"


def models_of(
    manifest: Manifest, tags: Sequence[str], context: Context, places: Sequence[Path]
) -> tuple[tuple[SelectedModel, ...], tuple[str, ...]]:
    """The models of a manifest, or those of them that tags choose, with their images; and notes for the user.

    ``places``: folders in which scripts are looked for, the first that has a model's is taken. Raises
    InputError, when no image is for the vendor or architecture that the context says as well.
    """
    entries, notes = _fitting(manifest, context)
    if tags:
        found = choose([entry.card for entry in entries], tags)
        by_place = {entry.card.source: entry for entry in entries}
        entries = [replace(by_place[choice.card.source], card=choice.finished()) for choice in found.choices]
        notes += found.notes
    _refuse_several(manifest, entries)
    return tuple(_selected(manifest, entry, places) for entry in entries), tuple(notes)


def _fitting(manifest: Manifest, context: Context) -> tuple[list[ManifestEntry], list[str]]:
    """The entries for the vendor and the architecture that are said."""
    vendor, arch = context.gpu_vendor, _architecture(context)
    kept: list[ManifestEntry] = []
    notes: list[str] = []
    for entry in manifest.entries:
        if vendor and entry.gpu_vendor and entry.gpu_vendor != vendor:
            notes.append(
                f"{manifest.path}: {entry.key} is for {entry.gpu_vendor}, not {vendor}, and is not run"
            )
        elif arch and entry.gpu_architecture and entry.gpu_architecture != arch:
            notes.append(f"{manifest.path}: {entry.key} is for {entry.gpu_architecture}, not {arch}: not run")
        else:
            kept.append(entry)
    if not kept:
        raise InputError(f"cannot run {manifest.path}: no image fits: {'; '.join(notes)}")
    return kept, notes


def _architecture(context: Context) -> str:
    return context.docker_env.get(ARCH, "") or context.build_args.get(ARCH, "")


def _refuse_several(manifest: Manifest, entries: Sequence[ManifestEntry]) -> None:
    """Images of one model that differ in their architecture only: one of them is meant."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        if entry.gpu_architecture:
            key = (entry.card.name, entry.card.args, entry.columns.get("docker_file", ""))
            found.setdefault(key, []).append(entry.gpu_architecture)
    for (name, _, _), archs in found.items():
        if len(archs) > 1:
            raise InputError(
                f"cannot run {manifest.path}: {name} has images for {', '.join(archs)}; say what nodes have: "
                f'-c \'{{"docker_env_vars": {{"{ARCH}": "{archs[0]}"}}}}\''
            )


def _selected(manifest: Manifest, entry: ManifestEntry, places: Sequence[Path]) -> SelectedModel:
    origin = f"{manifest.path}: built_images.{entry.key}"
    image = ModelImage(
        reference=entry.reference,
        origin=origin,
        image_id=entry.image_id,
        columns=entry.columns,
        gpu_vendor=entry.gpu_vendor,
        gpu_architecture=entry.gpu_architecture,
        key=entry.key,
        secrets=entry.secrets,
    )
    return locate(_place(entry, places), entry.card, image)


def _place(entry: ManifestEntry, places: Sequence[Path]) -> Path:
    """The first folder that has the model's scripts; the first of all when none has, for the error."""
    return next((place for place in places if _exists(place / entry.card.scripts)), places[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file system takes
        return False
