"""The images of a run: their names, where to take them from, how they travel between nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath

from ..workflow.errors import InputError, did_you_mean
from .inputs import RunInputs
from .model import CasePlan, ImagePlan, Travel
from .quantities import size

SECURITIES = ("tls", "integrity")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}")


def checked_reference(reference: str, origin: str) -> str:
    """The image's name as it is. Raises InputError, naming where it is from, for what no engine takes."""
    if not _IMAGE.fullmatch(reference):
        raise InputError(f"cannot use {origin}: {reference!r} is no image name")
    return reference


def image_plan(inputs: RunInputs, reference: str) -> ImagePlan:
    """The image by this reference."""
    archive = str(PurePath(inputs.cwd, inputs.image_archive)) if inputs.image_archive else ""
    return ImagePlan(reference, archive)


def travel_plan(inputs: RunInputs) -> Travel:
    """How layers travel between nodes. Raises InputError."""
    security = inputs.bulk_security or "tls"
    if security not in SECURITIES:
        raise InputError(
            f"cannot use --bulk-security {security}: expected {' or '.join(SECURITIES)}"
            f"{did_you_mean(security, SECURITIES)}"
        )
    rate = size(inputs.bulk_rate, "--bulk-rate") if inputs.bulk_rate else 0
    return Travel(security, rate)  # type: ignore[arg-type]


def image_plans(inputs: RunInputs, cases: Iterable[CasePlan]) -> tuple[ImagePlan, ...]:
    """The images that cases need, in the order of their first use.

    Raises InputError when only some of the cases need one, and for an archive that does not belong to just
    one image.
    """
    by_image: dict[str, str] = {}
    for case in cases:
        by_image.setdefault(case.image, case.name)
    references = [reference for reference in by_image if reference]
    words = ", ".join(f"{name} needs {reference or 'none'}" for reference, name in by_image.items())
    if references and "" in by_image:
        raise InputError(
            f"cannot run models with and without an image together: {words}; run them one by one, or give "
            "all of them one with --image NAME"
        )
    if inputs.image_archive and not references:
        raise InputError("cannot use --image-archive: it needs --image NAME, the image to take from it")
    if inputs.image_archive and len(references) > 1:
        raise InputError(
            f"cannot use --image-archive with more than one image: {words}; run them one by one, or put the "
            "archives into a folder that MAD_DOCKER_BUILDS names"
        )
    built = {} if inputs.image else _built(inputs)
    return tuple(
        replace(image_plan(inputs, reference), image_id=built.get(reference, "")) for reference in references
    )


def _built(inputs: RunInputs) -> dict[str, str]:
    """Which image was built under a name, as manifests say: the name may have come to mean another since."""
    images = (model.image for model in inputs.models if model.image)
    return {image.reference: image.image_id for image in images if image.image_id}


def bulk_warnings(travel: Travel) -> tuple[str, ...]:
    """What a person should know of the way that images go."""
    if travel.security == "tls":
        return ()
    return (
        "--bulk-security integrity: layers travel between nodes unencrypted; they are verified, but who can "
        "read the network can read them, with all secrets that are baked into them",
    )
