"""The image of a run: its name, where to take it from, how it travels between nodes."""

from __future__ import annotations

import re
from pathlib import PurePath

from ..workflow.errors import InputError, did_you_mean
from .inputs import RunInputs
from .model import ImagePlan
from .quantities import size

SECURITIES = ("tls", "integrity")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}")


def checked_reference(reference: str, origin: str) -> str:
    """The image's name as it is. Raises InputError, naming where it is from, for what no engine takes."""
    if not _IMAGE.fullmatch(reference):
        raise InputError(f"cannot use {origin}: {reference!r} is no image name")
    return reference


def image_plan(inputs: RunInputs, reference: str) -> ImagePlan:
    """The image by this reference. Raises InputError."""
    security = inputs.bulk_security or "tls"
    if security not in SECURITIES:
        raise InputError(
            f"cannot use --bulk-security {security}: expected {' or '.join(SECURITIES)}"
            f"{did_you_mean(security, SECURITIES)}"
        )
    rate = size(inputs.bulk_rate, "--bulk-rate") if inputs.bulk_rate else 0
    archive = str(PurePath(inputs.cwd, inputs.image_archive)) if inputs.image_archive else ""
    return ImagePlan(reference, archive, security, rate)  # type: ignore[arg-type]


def bulk_warnings(image: ImagePlan | None) -> tuple[str, ...]:
    """What a person should know of the way that the image goes."""
    if image is None or image.security == "tls":
        return ()
    return (
        "--bulk-security integrity: layers travel between nodes unencrypted; they are verified, but who can "
        "read the network can read them, with all secrets that are baked into them",
    )
