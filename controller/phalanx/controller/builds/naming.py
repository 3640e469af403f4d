"""Names that a build gives: images, logs, and what an image is called in a registry. All are madengine's."""

from __future__ import annotations

import re

from ..workflow.errors import InputError

#: What engines take as an image's name without registry and tag (distribution/reference), and how long.
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
LONGEST = 200
#: Longest tag that registries take (distribution/reference).
LONGEST_TAG = 128
#: How registries may be called that mean Docker Hub.
HUB = ("docker.io", "dockerhub")
_HUB_HOSTS = (*HUB, "index.docker.io", "registry-1.docker.io")
_REGISTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]{1,5})?(?:/[a-z0-9._/-]+)?")


def image_name(model: str, stem: str, arch: str, where: str) -> str:
    """``ci-<model>_<dockerfile>[_<arch>]``. Raises InputError for what no engine takes as a name."""
    name = f"ci-{model.replace('/', '_').lower()}_{stem}" + (f"_{arch}" if arch else "")
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise InputError(
            f"cannot build {where}: no engine takes {name!r} as an image's name: small letters, digits and "
            "single '.', '_', '-' between them; rename the model or its Dockerfile"
        )
    return name


def log_name(model: str, stem: str, arch: str) -> str:
    """``<model>_<dockerfile>[_<arch>].build.live.log``."""
    return f"{model.replace('/', '_')}_{stem}" + (f"_{arch}" if arch else "") + ".build.live.log"


def checked_registry(registry: str, origin: str) -> str:
    """A registry as it is, blanks around it gone. Raises InputError."""
    word = registry.strip().rstrip("/")
    if not _REGISTRY.fullmatch(word):
        raise InputError(
            f"cannot use {origin}: {registry!r} is no registry, such as registry.example:5000 or docker.io"
        )
    return word


def numbered(name: str, taken: set[str]) -> int:
    """1 when nobody has the name yet, else what has to follow it: 2 for ``<name>_2``. Takes it."""
    number = 1
    while (f"{name}_{number}" if number > 1 else name) in taken:
        number += 1
    taken.add(f"{name}_{number}" if number > 1 else name)
    return number


def on_hub(registry: str) -> bool:
    """Whether a registry is Docker Hub, or a part of it (``docker.io/team``)."""
    return registry.partition("/")[0] in ("", *_HUB_HOSTS)


def checked_pushed(name: str, where: str) -> str:
    """A name in a registry as it is. Raises InputError for a tag that is longer than registries take."""
    tag = name.rpartition("/")[2].partition(":")[2]
    if len(tag) > LONGEST_TAG:
        raise InputError(f"cannot push {where}: the tag {tag!r} is longer than {LONGEST_TAG} characters")
    return name


def pushed_name(registry: str, repository: str, image: str) -> str:
    """What an image is called in a registry: on Docker Hub a tag of one repository, elsewhere a repository of
    its own, or a tag of the configured one.
    """
    if registry in HUB:
        return f"{repository}:{image}" if repository else image
    return f"{registry}/{repository}:{image}" if repository else f"{registry}/{image}"
