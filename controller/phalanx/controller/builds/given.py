"""Models whose image is there already: ``--use-image``, models that bring an image of their own, batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..plan.image import checked_reference
from ..workflow.card import ModelCard
from ..workflow.errors import InputError
from .credentials import HUB_KEY
from .entries import entry, open_env
from .inputs import BuildInputs
from .model import GivenImage
from .naming import image_name, numbered

AUTO = "auto"
SELF_MANAGED = ("slurm_multi", "slurm-multi")
OWN_IMAGE = "DOCKER_IMAGE_NAME"
#: What madengine's manifests say of GPUs and time when a card with a given image does not.
GIVEN_GPUS, GIVEN_TIMEOUT = "8", -1


def given_images(inputs: BuildInputs, registry: str) -> tuple[list[GivenImage], list[ModelCard]]:
    """Models with a given image, and the others, which are built. Raises InputError.

    A self-managed model (launcher slurm_multi) without a registry runs in the image that its card names:
    what is built here could not reach the nodes it starts itself.
    """
    if inputs.use_image:
        for option, said in (("--registry", registry), ("--build-on-compute", inputs.on_compute)):
            if said:
                raise InputError(f"cannot use --use-image with {option}: nothing is built; leave one out")
        image = _of_all(inputs)
        return [_prebuilt(card, image) for card in inputs.cards], []
    given, rest = [], []
    for card in inputs.cards:
        if registry or not _self_managed(inputs, card):
            rest.append(card)
            continue
        own = card.env_vars.get(OWN_IMAGE, "")
        if not own:
            raise InputError(
                f"cannot build {card.where}: launcher slurm_multi starts the nodes by itself, and they could "
                f"not get an image that is only here; say --registry R, --use-image IMAGE, or name one in "
                f"env_vars.{OWN_IMAGE}"
            )
        given.append(_prebuilt(card, checked_reference(own, f"{card.where}: env_vars.{OWN_IMAGE}")))
    return given, rest


def distinct_keys(given: Sequence[GivenImage], taken: Iterable[str]) -> list[GivenImage]:
    """The same, each under a key of its own: a model that is chosen with different arguments is two."""
    known, found = set(taken), []
    for one in given:
        number = numbered(one.key, known)
        found.append(replace(one, key=f"{one.key}_{number}") if number > 1 else one)
    return found


def images_differ(inputs: BuildInputs) -> str:
    """A warning for ``--use-image auto`` when the models name different images, else ""."""
    named = {card.env_vars[OWN_IMAGE]: card.name for card in inputs.cards if card.env_vars.get(OWN_IMAGE)}
    if inputs.use_image != AUTO or len(named) < 2:
        return ""
    words = ", ".join(f"{name} names {image}" for image, name in named.items())
    return f"--use-image auto takes {_of_all(inputs)} for all models, and they differ: {words}"


def batch_images(inputs: BuildInputs, stems: Mapping[str, Sequence[str]], registry: str) -> list[GivenImage]:
    """The models of a batch that are not built: entries as if they had been. ``stems``: the Dockerfiles that
    fit each, by the model's name."""
    found = []
    for line in inputs.batch:
        card = next((one for one in inputs.others if one.name == line.model), None)
        if card is None:
            continue
        where = line.registry or registry or HUB_KEY
        given = f"--batch-manifest: {line.model}: registry_image"
        for stem in stems[card.name]:
            key = image_name(card.name, stem, "", card.where)
            image = checked_reference(line.registry_image or f"{where}/{key}", given)
            found.append(GivenImage(key, image, card.name, entry(card), "batch", where, stem))
    return found


def _of_all(inputs: BuildInputs) -> str:
    if inputs.use_image != AUTO:
        return checked_reference(inputs.use_image, "--use-image")
    for card in inputs.cards:
        if own := card.env_vars.get(OWN_IMAGE):
            return checked_reference(own, f"{card.where}: env_vars.{OWN_IMAGE}")
    raise InputError(
        f"cannot use --use-image auto: none of the chosen models names an image in env_vars.{OWN_IMAGE}; "
        "say --use-image IMAGE"
    )


def _self_managed(inputs: BuildInputs, card: ModelCard) -> bool:
    said = inputs.context.launcher or card.distributed.get("launcher") or ""
    return said in SELF_MANAGED


def _prebuilt(card: ModelCard, image: str) -> GivenImage:
    said = {
        **entry(card),
        "image": image,
        "docker_image": image,
        "n_gpus": card.n_gpus or GIVEN_GPUS,
        "timeout": card.timeout or GIVEN_TIMEOUT,
        "tags": list(card.tags),
        "slurm": dict(card.slurm),
        "distributed": dict(card.distributed),
        "env_vars": {**open_env(card), OWN_IMAGE: image},
        "prebuilt": True,
    }
    return GivenImage(card.name, image, card.name, said, "prebuilt")
