"""Command lines of the engine's client, as lists: what it can do decides how a build is said. Pure.

The client and not the HTTP API: BuildKit's secrets and named contexts need a session that the client holds,
and ``docker`` is what people have who build. Nothing of its output decides anything: a build is judged by
its exit status and the id it writes to a file. A secret is never a word of a command line: arguments take
theirs from the client's environment, mounts from a private file.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .dockerfiles import TOOLS, TOOLS_FOLDER
from .model import ImageBuild

PROGRAM = "docker"


@dataclass(frozen=True, slots=True)
class Builder:
    """What the engine's client can do. ``buildkit``: secrets can be mounted; ``named_contexts``: a build may
    copy from more folders than one."""

    version: str
    buildkit: bool
    named_contexts: bool

    @property
    def words(self) -> str:
        """For people: ``engine 20.10.24, BuildKit``."""
        return (
            f"engine {self.version}, {'BuildKit' if self.buildkit else 'the classic builder (no BuildKit)'}"
        )


#: A client that nobody has asked; a build for it says only what every one takes.
UNKNOWN = Builder("?", buildkit=False, named_contexts=False)


def builder_of(version: str, help_text: str) -> Builder:
    """From the engine's version and what ``docker build --help`` offers with BuildKit, "" for a refusal."""
    return Builder(version, "--secret" in help_text, "--build-context" in help_text)


def build_argv(
    builder: Builder,
    builds: Sequence[ImageBuild],
    *,
    fresh: bool,
    pull: bool,
    iidfile: str = "",
    secret_files: Mapping[str, str] | None = None,
    stdin: bool = False,
    tools: bool = False,
) -> tuple[str, ...]:
    """One build for images of one recipe.

    ``stdin``: the Dockerfile comes over standard input. ``tools``: the project has the folder of tools.
    """
    first = builds[0]
    words = [PROGRAM, "build", "--network=host"]
    words += ["--no-cache"] if fresh else []
    if builder is not UNKNOWN:
        words += ["--progress=plain"] if builder.buildkit else ["--force-rm"]
    if (tools or first.tools) and builder.named_contexts:
        words += ["--build-context", f"{TOOLS}={TOOLS_FOLDER}"]
    for build in builds:
        words += ["-t", build.image]
    words += ["--pull"] if pull else []
    words += ["-f", "-" if stdin else f"./{first.dockerfile}"]
    for arg in first.args:
        words += ["--build-arg", arg.name if arg.secret else f"{arg.name}={arg.value}"]
    for name in first.mounts:
        source = f"src={(secret_files or {}).get(name, '?')}" if builder is not UNKNOWN else f"env={name}"
        words += ["--secret", f"id={name},{source}"]
    words += ["--iidfile", iidfile] if iidfile else []
    return (*words, f"./{first.folder}")


def shown_command(
    builder: Builder, builds: Sequence[ImageBuild], *, fresh: bool, pull: bool, tools: bool = False
) -> str:
    """The build for people and manifests, ready to paste; secrets by their names only."""
    return shlex.join(build_argv(builder, builds, fresh=fresh, pull=pull, tools=tools))


def tools_argv(builder: Builder, image: str) -> tuple[str, ...]:
    """An image of the folder of tools, for builders without named contexts; its Dockerfile over stdin."""
    extra = "--progress=plain" if builder.buildkit else "--force-rm"
    return (PROGRAM, "build", extra, "-t", image, "-f", "-", f"./{TOOLS_FOLDER}")


#: The Dockerfile of that image.
TOOLS_DOCKERFILE = "FROM scratch\nCOPY . /\n"


def login_argv(username: str, host: str) -> tuple[str, ...]:
    """``docker login``; the password goes to its input. ``host`` "" is Docker Hub."""
    return (PROGRAM, "login", "--username", username, "--password-stdin", *([host] if host else []))


def tag_argv(image: str, name: str) -> tuple[str, ...]:
    """A further name for an image."""
    return (PROGRAM, "tag", image, name)


def push_argv(name: str) -> tuple[str, ...]:
    """An image to the registry that its name says."""
    return (PROGRAM, "push", name)


def remove_argv(image: str) -> tuple[str, ...]:
    """A name of an image away."""
    return (PROGRAM, "image", "rm", image)


def inspect_argv(image: str) -> tuple[str, ...]:
    """What the engine knows of an image, as JSON."""
    return (PROGRAM, "image", "inspect", "--format", "{{json .}}", image)


def manifest_argv(image: str) -> tuple[str, ...]:
    """What the registry of an image knows of it: fails when that has none, or cannot be asked."""
    return (PROGRAM, "manifest", "inspect", image)


VERSION_ARGV = (PROGRAM, "version", "--format", "{{.Server.Version}}")
HELP_ARGV = (PROGRAM, "build", "--help")
