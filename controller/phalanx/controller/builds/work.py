"""A BuildPlan is carried out: several builds at a time, whole logs, pushes; one Built for every image.

What cannot begin (no engine, a refused login) is a BuildError. What fails in one image is said in its Built,
and the others go on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ..plan.secrets import MASKABLE, Secret, Secrets
from .argv import (
    TOOLS_DOCKERFILE,
    Builder,
    build_argv,
    manifest_argv,
    push_argv,
    remove_argv,
    shown_command,
    tag_argv,
    tools_argv,
)
from .client import BuildError, Client
from .credentials import CredentialBook
from .dockerfiles import with_tools_stage
from .manifest import Built
from .model import BuildPlan, ImageBuild
from .registry import logged_in, private_root

#: How long the folder of tools may take to become an image, in seconds.
TOOLS_S = 600.0
#: Lines of output that may say why a build failed.
_KEPT_LINES = 12


@dataclass(frozen=True, slots=True)
class Told:
    """What happens to an image: "begun", "line" (``words`` is one of its output), "pushing", or "done"."""

    what: str
    build: ImageBuild
    words: str = ""
    built: Built | None = None


Tell = Callable[[Told], None]


class _Work:
    """``folder`` is private; ``tools_image`` stands for the folder of tools where builds cannot name it."""

    def __init__(
        self, plan: BuildPlan, client: Client, builder: Builder, secrets: Secrets, tell: Tell, folder: str
    ) -> None:
        self.plan, self.client, self.builder = plan, client, builder
        self.secrets, self.tell, self.folder = secrets, tell, folder
        self.tools_image = ""
        self._slots = asyncio.Semaphore(plan.at_once)
        self._mask = _by_lines(secrets)

    async def all(self) -> list[Built]:
        """Every image of the plan, in its order."""
        try:
            async with asyncio.TaskGroup() as group:
                jobs = [
                    group.create_task(self._job(builds), name=f"build of {builds[0].image}")
                    for builds in self.plan.jobs()
                ]
        except BaseExceptionGroup as errors:  # one is enough: nobody reads the terminal any more, or a defect
            raise errors.exceptions[0] from None
        found = {built.build.image: built for job in jobs for built in job.result()}
        return [found[build.image] for build in self.plan.builds]

    async def _job(self, builds: tuple[ImageBuild, ...]) -> list[Built]:
        """One run of the builder, and the pushes. What fails is said of these images and of no other."""
        async with self._slots:
            for build in builds:
                self.tell(Told("begun", build))
            begun = time.monotonic()
            try:
                outcomes = await self._built(builds)
            except (OSError, ValueError, BuildError) as error:
                why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
                took = time.monotonic() - begun
                outcomes = [Built(build, duration_s=took, error=f"cannot build: {why}") for build in builds]
            pushed = [await self._pushed(one) for one in outcomes]
            for one in pushed:
                self.tell(Told("done", one.build, built=one))
            return pushed

    async def _built(self, builds: tuple[ImageBuild, ...]) -> list[Built]:
        """One run of the builder for images of one recipe. Raises OSError, ValueError or BuildError."""
        begun, last = time.monotonic(), _LastLines()
        first = builds[0]

        def told(line: str) -> None:
            last.add(line)
            self.tell(Told("line", first, line))

        here = [base for base in first.bases if await self._only_here(base)]
        pull = not here
        command = shown_command(
            self.builder, builds, fresh=self.plan.fresh, pull=pull, tools=self.plan.has_tools
        )
        iidfile = Path(self.folder, f"{first.image}.iid")
        _forget_logs(self.plan, builds)
        with _log(self.plan, first, "wb") as log:
            log.write(f"$ {command}\n".encode())
            for base in here:
                log.write(f"{base} is taken as it is here: no registry has it, or answers\n".encode())
            status = await self._build(builds, log, told, pull, iidfile)
        self._link_logs(builds)
        took = time.monotonic() - begun
        if status:
            why = f"the builder ended with exit {status}: {last.reason()}; the whole log is {first.log}"
            return [Built(build, duration_s=took, command=command, error=why) for build in builds]
        image_id, digest = _read(iidfile).strip(), await self._digest(first.base)
        return [Built(build, image_id, took, base_digest=digest, command=command) for build in builds]

    async def _build(
        self,
        builds: tuple[ImageBuild, ...],
        log: BinaryIO,
        told: Callable[[str], None],
        pull: bool,
        iidfile: Path,
    ) -> int:
        first = builds[0]
        staged = first.tools and not self.builder.named_contexts
        text = ""
        if staged:
            text = with_tools_stage(_read(Path(self.plan.project, first.dockerfile)), self.tools_image)
        argv = build_argv(
            self.builder,
            builds,
            fresh=self.plan.fresh,
            pull=pull and not staged,
            iidfile=str(iidfile),
            secret_files=self._secret_files(first),
            stdin=staged,
            tools=self.plan.has_tools,
        )
        extra = {"DOCKER_BUILDKIT": "1" if self.builder.buildkit else "0"}
        values = self.secrets.values_by_name()
        extra |= {arg.name: values[arg.name] for arg in first.args if arg.secret}
        return await self.client.follow(argv, log, self._mask, given=text, extra=extra, tell=told)

    def _secret_files(self, build: ImageBuild) -> Mapping[str, str]:
        """A private file for each secret that the Dockerfile mounts. Raises BuildError without BuildKit."""
        if build.mounts and not self.builder.buildkit:
            raise BuildError(
                f"{build.dockerfile} mounts the secret {build.mounts[0]}, which takes BuildKit, and this "
                f"machine has {self.builder.words}; install docker's buildx"
            )
        values = self.secrets.values_by_name()
        files = {}
        for name in build.mounts:
            path = Path(self.folder, f"{name}.secret")
            if not path.exists():
                path.touch(mode=0o600)
                path.write_text(values[name])
            files[name] = str(path)
        return files

    async def _only_here(self, base: str) -> bool:
        """Whether no registry has it: a newer one is not to be asked for. The containerd store gives every
        image a digest under its own name, by its id: there only the registry can tell, if it answers."""
        found = await self._known(base)
        digests = [str(name).partition("@")[2] for name in found.get("RepoDigests") or []]
        if not found or (digests and found.get("Id") not in digests):
            return False
        return not digests or (await self.client.ask(manifest_argv(base))).status != 0

    async def _known(self, image: str) -> dict[str, Any]:
        """What the engine knows of an image, {} also when it does not answer: that decides no build."""
        try:
            return await self.client.image(image)
        except BuildError:
            return {}

    async def _digest(self, base: str) -> str:
        """The digest of a base image: its registry's, else its id; "" when the engine has neither."""
        if not base:
            return ""
        found = await self._known(base)
        digests = found.get("RepoDigests") or []
        return str(digests[0]).partition("@")[2] if digests else str(found.get("Id") or "")

    def _link_logs(self, builds: tuple[ImageBuild, ...]) -> None:
        """Each image has a log under its own name; those of one build are one file."""
        source = Path(self.plan.logs, builds[0].log)
        for build in builds[1:]:
            path = Path(self.plan.logs, build.log)
            try:
                os.link(source, path)
            except OSError:
                shutil.copyfile(source, path)

    async def _pushed(self, one: Built) -> Built:
        """The image in its registry, if it has one to go to."""
        name = one.build.pushed
        if not name or one.error:
            return one
        self.tell(Told("pushing", one.build, name))
        last = _LastLines()
        try:
            tagged = await self.client.ask(tag_argv(one.build.image, name))
            if tagged.status:
                raise BuildError(last.of(tagged.err))
            with _log(self.plan, one.build, "ab") as log:
                log.write(f"$ docker push {name}\n".encode())
                status = await self.client.follow(push_argv(name), log, self._mask, tell=last.add)
        except (OSError, BuildError) as error:
            return replace(one, push_error=str(error))
        return replace(one, push_error=f"exit {status}: {last.reason()}") if status else one


class _LastLines:
    """The end of an output, and which of it says why."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        if line.strip():
            self._lines = [*self._lines[1 - _KEPT_LINES :], line.strip()]

    def reason(self) -> str:
        said = [line for line in self._lines if "error" in line.lower() or "returned a non-zero" in line]
        return (said or self._lines or ["it says nothing"])[-1]

    def of(self, text: str) -> str:
        for line in text.splitlines():
            self.add(line)
        return self.reason()


async def carry_out(
    plan: BuildPlan,
    secrets: Secrets,
    credentials: CredentialBook,
    environ: Mapping[str, str],
    tell: Tell,
) -> list[Built]:
    """Build and push every image of the plan. Raises BuildError when it cannot begin."""
    if not plan.builds:
        return []
    client = Client(Path(plan.project), dict(environ))
    builder = await client.builder()
    login = credentials.login(plan.registry) if plan.registry else None
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(logged_in(client, plan.registry, login))
        folder = tempfile.mkdtemp(prefix="phalanx-build-", dir=private_root(environ))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        work = _Work(plan, client, builder, secrets, tell, folder)
        if any(build.tools for build in plan.builds) and not builder.named_contexts:
            work.tools_image = await _tools_image(client, builder, Path(folder).name)
            stack.push_async_callback(_forget, client, work.tools_image)
        return await work.all()


async def _tools_image(client: Client, builder: Builder, tag: str) -> str:
    """The project's folder of tools as an image, for as long as the builds last."""
    image = f"phalanx-tools:{tag}"
    said = await client.ask(
        tools_argv(builder, image),
        given=TOOLS_DOCKERFILE,
        extra={"DOCKER_BUILDKIT": "1" if builder.buildkit else "0"},
        within_s=TOOLS_S,
    )
    if said.status:
        raise BuildError(f"cannot build: docker/common as a build context: {_LastLines().of(said.err)}")
    return image


async def _forget(client: Client, image: str) -> None:
    await client.ask(remove_argv(image))


def _forget_logs(plan: BuildPlan, builds: Sequence[ImageBuild]) -> None:
    """The files of earlier builds: each may be another image's as well, and is not to be written into."""
    for build in builds:
        Path(plan.logs, build.log).unlink(missing_ok=True)


def _log(plan: BuildPlan, build: ImageBuild, mode: Literal["wb", "ab"]) -> BinaryIO:
    return Path(plan.logs, build.log).open(mode)


def _read(path: Path) -> str:
    return path.read_text()


def _by_lines(secrets: Secrets) -> Secrets:
    """For masking an output line by line: a value of several lines is hidden line by line."""
    found: dict[str, Secret] = dict(secrets.items())
    for name, secret in secrets.items():
        lines = [line.strip() for line in secret.value.splitlines() if len(line.strip()) >= MASKABLE]
        if len(lines) > 1 or (lines and lines[0] != secret.value):
            found |= {f"{name}#{number}": Secret(line, secret.origin) for number, line in enumerate(lines)}
    return Secrets(found)


def failures(outcomes: Sequence[Built]) -> list[Built]:
    """Images that were not built, or not pushed."""
    return [one for one in outcomes if one.error or one.push_error]
