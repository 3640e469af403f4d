"""Pins: an image that a job is to use is kept from ``docker image prune -a`` by a container that never runs.

Engines have no other way. The container carries the labels of its run's containers, so whoever sweeps after a
lost agent removes it with them when the lease is over. (``docker system prune -a`` takes stopped containers
too, unless it is told ``--filter label!=phalanx.pin``.)
"""

from __future__ import annotations

from phalanx.agent.runtimes.base import ImageError, Owner
from phalanx.agent.runtimes.engine import CREATE_S, EngineClient, EngineError
from phalanx.agent.runtimes.janitor import LABEL_EXPIRES, LABEL_LEASE, LABEL_UID
from phalanx.agent.runtimes.store import store_of

LABEL_PIN = "phalanx.pin"


def pin_labels(owner: Owner, lease_file: str, now_unix: float) -> dict[str, str]:
    """Labels by which the janitor keeps the pin while that lease holds, and removes it after."""
    return {
        "phalanx.run": owner.run_id,
        "phalanx.node": owner.node,
        "phalanx.node_rank": str(owner.node_rank),
        "phalanx.incarnation": owner.incarnation,
        LABEL_UID: str(owner.uid),
        LABEL_EXPIRES: str(int(now_unix + owner.lease_s)),
        LABEL_LEASE: lease_file,
    }


async def pin(engine: EngineClient, image_id: str, labels: dict[str, str]) -> str:
    """Keep the image; the pin's name for ``unpin``. Raises ImageError.

    ``labels``: from ``pin_labels``, without which no janitor would ever remove it.
    """
    config = {
        "Image": image_id,
        "Entrypoint": ["phalanx-pin"],  # never started: an image without a command has to do as well
        "Cmd": [],
        "NetworkDisabled": True,
        "Labels": labels | {LABEL_PIN: image_id},
    }
    try:
        container = await engine.call("make a container", engine.api.containers.create(config), CREATE_S)
    except EngineError as error:
        raise ImageError(f"cannot pin image {image_id[:19]}: {error}") from error
    return str(container.id)


async def pin_brought(engine: EngineClient, image_id: str, labels: dict[str, str]) -> tuple[str, str]:
    """Pin an image that has just been loaded; the pin's name, or "" and why it has none.

    The containerd store lists images that it cannot run: one of which it can make no container has not come.
    Raises ImageError for that.
    """
    try:
        return await pin(engine, image_id, labels), ""
    except ImageError as error:
        try:
            lists_all = (await store_of(engine)).containerd
        except EngineError as failed:
            raise ImageError(f"{error}; nor does the engine say what it is: {failed}") from error
        if lists_all:
            raise
        return "", str(error)


async def unpin(engine: EngineClient, name: str) -> None:
    """Let the image go; one that is gone already is fine. Raises ImageError."""
    try:
        container = engine.api.containers.container(name)
        await engine.call("remove a container", container.delete(force=True, v=True), CREATE_S)
    except EngineError as error:
        if error.status not in (404, 409):  # gone, or being removed by the janitor
            raise ImageError(f"cannot unpin an image: {error}") from error
