"""The docker runtime: a case is a container with our supervisor as PID 1, a step a detached exec in it.

The engine is asked to make, start and remove containers and to start steps, nothing else: output, exit
status, stopping and the lease go through files that the container has mounted, and work while it hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

from phalanx.agent.lease import Lease, boottime
from phalanx.agent.relay.place import layers_place
from phalanx.agent.runtimes import access, creation, forbidden, images, janitor, leftovers, processes
from phalanx.agent.runtimes.base import CasePlaces, Owner, RuntimeUnavailable
from phalanx.agent.runtimes.container import ContainerPlace, Life
from phalanx.agent.runtimes.container_config import Given, container_config, container_name
from phalanx.agent.runtimes.engine import (
    CREATE_S,
    PING_S,
    EngineClient,
    EngineError,
    address,
    import_client,
)
from phalanx.agent.runtimes.engine_limits import EngineLimits, limits_of
from phalanx.agent.runtimes.rocm_root import rocm_defaults
from phalanx.protocol.messages import CaseOpen, Engine


class DockerRuntime:
    """An engine that speaks Docker's API: dockerd, or podman's socket.

    ``spool_root``: where directories of runs are, for ``sweep``. ``forbidden_file``: what this node forbids.
    """

    def __init__(self, spool_root: Path, forbidden_file: Path = forbidden.FILE) -> None:
        self._spool_root = spool_root
        self._forbidden_file = forbidden_file
        self._client: EngineClient | None = None
        self._kind = "docker"
        self._limits = EngineLimits({}, {})

    @property
    def client(self) -> EngineClient:
        """The open engine. Raises RuntimeUnavailable before ``open``."""
        if self._client is None:
            raise RuntimeUnavailable("the docker runtime is not open")
        return self._client

    async def open(self, library: Path | None) -> Engine:
        """Connect. Raises LibraryMissing, or RuntimeUnavailable when no engine answers."""
        await self.close()
        module = await asyncio.to_thread(import_client, library)
        client = EngineClient(module, address())
        try:
            version: dict[str, Any] = await client.call("ask for its version", client.api.version(), PING_S)
            info: Any = await client.call("ask for its state", client.api.system.info())
        except BaseException:
            await client.close()
            raise
        self._client = client
        self._kind = images.engine_kind(version)
        self._limits = await asyncio.to_thread(limits_of, client.url)
        return Engine(
            kind=self._kind,
            version=str(version.get("Version", "")),
            api=str(version.get("ApiVersion", "")),
            storage=str(info.get("Driver", "")),
        )

    async def image_id(self, reference: str) -> str:
        """The id under which the engine has the image, "" when it has none."""
        return await images.image_id(self.client, reference)

    async def open_case(self, case: CaseOpen, places: CasePlaces, owner: Owner) -> ContainerPlace:
        """Make and start the container of the case. Raises RuntimeUnavailable."""
        try:
            return await self._open_case(case, places, owner)
        except (RuntimeUnavailable, OSError) as error:
            raise RuntimeUnavailable(f"cannot open case {case.case} on {owner.node}: {error}") from error

    async def _open_case(self, case: CaseOpen, places: CasePlaces, owner: Owner) -> ContainerPlace:
        refused = await asyncio.to_thread(forbidden.forbidden_here, os.environ, self._forbidden_file)
        await asyncio.to_thread(creation.check, case.spec, self._kind, refused, self._limits.ceilings)
        image = case.spec.image_id or await self.image_id(case.spec.image)
        if not image:
            raise RuntimeUnavailable(f"image {case.spec.image or '(none named)'} is not on this node")
        control = await asyncio.to_thread(creation.make_directories, places)
        lease = Lease(control / "expires")
        lease.renew(boottime() + owner.lease_s)
        await self._remove_superseded(case.case, owner)
        given = Given(
            case=case.case,
            image_id=image,
            places=places,
            control=str(control),
            lease_file=str(lease.path),
            owner=owner,
            socket=places.socket.is_socket(),
            now_unix=time.time(),
        )
        name = container_name(owner, case.case)
        container = await self._create(name, case, given)
        try:
            return await self._start(container, name, case, given, lease)
        except BaseException:
            # whatever it was, no container may stay that nobody holds
            with contextlib.suppress(EngineError, OSError):
                lease.end()
                await asyncio.shield(self._delete(container, name))
            raise

    async def _create(self, name: str, case: CaseOpen, given: Given) -> Any:
        config = container_config(
            creation.with_engine_defaults(case.spec, self._kind, self._limits.hard), given
        )
        create = self.client.api.containers.create(config, name=name)
        try:
            return await self.client.call(f"create container {name}", create, CREATE_S)
        except EngineError as error:
            raise creation.explained(error, case.spec, self._limits.hard) from error

    async def _start(
        self, container: Any, name: str, case: CaseOpen, given: Given, lease: Lease
    ) -> ContainerPlace:
        try:
            await self.client.call(f"start container {name}", container.start(), CREATE_S)
        except EngineError as error:
            raise creation.explained(error, case.spec, self._limits.hard) from error
        shown = await self.client.call(f"look at container {name}", container.show())
        state = shown["State"]
        if not state.get("Running"):
            raise RuntimeUnavailable(creation.ended_at_once(case.spec.image, int(state.get("ExitCode") or 0)))
        pid = int(state.get("Pid") or 0)
        if not processes.exists(pid):
            raise RuntimeUnavailable(
                f"the engine at {self.client.url} runs its containers on another machine (process {pid} is "
                "not here); set DOCKER_HOST to an engine of this node"
            )
        user = await asyncio.to_thread(access.user_of, pid)
        places = given.places
        shared = [places.spool, places.results, *([places.socket] if given.socket else [])]
        await asyncio.to_thread(lambda: access.let_in(user, [*shared, *access.tree(places.work)]))
        life = Life(self.client, container, name, pid, user, lease)
        image_env = [str(text) for text in (shown.get("Config") or {}).get("Env") or ()]
        defaults = rocm_defaults(image_env, case.spec, await asyncio.to_thread(_in_opt, pid))
        return ContainerPlace(life, case, places, given.owner, defaults)

    async def _remove_superseded(self, case: str, owner: Owner) -> None:
        """Remove what an earlier incarnation (or attempt) of this very place left: it must not run twice."""
        same = {
            "phalanx.run": owner.run_id,
            "phalanx.case": case,
            "phalanx.node_rank": str(owner.node_rank),
            janitor.LABEL_UID: str(owner.uid),
        }
        for container, labels, _ in await self._labelled(owner.uid):
            if all(labels.get(key) == value for key, value in same.items()):
                await self._delete(container, "of an earlier incarnation")

    async def _labelled(self, uid: int) -> list[tuple[Any, dict[str, str], str]]:
        """Containers that carry this user's label: container, labels, state."""
        listing = self.client.api.containers.list(
            all="true", filters=f'{{"label":["{janitor.LABEL_UID}={uid}"]}}'
        )
        found = await self.client.call("list containers", listing)
        return [
            (container, dict(container["Labels"] or {}), str(container["State"]))
            for container in found
            if dict(container["Labels"] or {}).get(janitor.LABEL_UID) == str(uid)
        ]

    async def _delete(self, container: Any, name: str) -> None:
        try:
            await self.client.call(f"remove container {name}", container.delete(force=True, v=True), CREATE_S)
        except EngineError as error:
            if error.status not in (404, 409):  # gone, or being removed by someone else
                raise

    async def sweep(self) -> list[str]:
        """Remove containers and directories of this user whose leases are over, and old parts of images."""
        uid = os.getuid()
        words = []
        for container, labels, state in await self._labelled(uid):
            held = await asyncio.to_thread(janitor.lease_holds, labels.get(janitor.LABEL_LEASE, ""))
            reason = janitor.container_verdict(labels, state == "running", uid, time.time(), held)
            if reason:
                name = str((container["Names"] or ["?"])[0]).lstrip("/")
                await self._delete(container, name)
                words.append(f"container {name} of run {labels['phalanx.run']}: {reason}")
        words += await asyncio.to_thread(janitor.remove_stale_files, self._spool_root, uid)
        try:
            return words + await leftovers.remove_leftovers(
                self.client, layers_place(os.environ, os.geteuid())
            )
        except RuntimeUnavailable as error:
            return [*words, str(error)]

    async def close(self) -> None:
        """Let go of the engine; containers go on under their leases."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _in_opt(pid: int) -> list[str]:
    """What a container has in /opt, seen from this node."""
    try:
        opt = Path(f"/proc/{pid}/root/opt")
        # a link would lead into the node's own tree
        return [] if opt.is_symlink() else [path.name for path in opt.iterdir()]
    except OSError:
        return []
