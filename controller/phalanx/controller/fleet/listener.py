"""Listening sockets: one per address, ports picked by the kernel, an accept loop that waits for nobody."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .admission import PROVE_WITHIN_S, Door

#: Length of the queue of connections that the kernel completes for us (asyncio's 100 is far too short).
BACKLOG = 4096
#: Pause when the process is out of file descriptors: established connections keep working.
NO_FDS_PAUSE_S = 1.0
#: TLS handshakes at one time. A thousand nodes knock at once when a run starts; each takes some ms of CPU.
MOST_HANDSHAKES = 4096
#: What accept(2) says when this side has no room, and when the connection it had is gone already.
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PEER_TROUBLE = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN),
        *(errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH),
    }
)

log = logging.getLogger("phalanx.controller")


class ListenError(Exception):
    """No address to listen on."""


@dataclass(slots=True)
class Listener:
    """Bound sockets; ``addresses`` is what agents are told."""

    sockets: list[socket.socket]
    addresses: tuple[tuple[str, int], ...]

    def close(self) -> None:
        """Stop listening."""
        for sock in self.sockets:
            sock.close()


def listen(addresses: tuple[str, ...]) -> Listener:
    """Listen on each address that this machine has. Raises ListenError when none can be bound."""
    sockets: list[socket.socket] = []
    bound: list[tuple[str, int]] = []
    troubles: list[str] = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind((address, 0))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            troubles.append(f"{address}: {error.strerror}")
            continue
        sockets.append(sock)
        bound.append((address, sock.getsockname()[1]))
    if not sockets:
        raise ListenError(f"cannot listen for agents: {'; '.join(troubles) or 'no address'}; see --advertise")
    return Listener(sockets, tuple(bound))


async def accept_forever(
    sock: socket.socket, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]
) -> None:
    """Accept until cancelled. A peer that stalls in its TLS handshake delays no other.

    When too many are in their handshake, the source that has most of them loses its oldest.
    """
    loop = asyncio.get_running_loop()
    door: Door[asyncio.Task[None]] = Door(most_handshakes())
    async with asyncio.TaskGroup() as handshakes:
        while True:
            try:
                connection, address = await loop.sock_accept(sock)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    await asyncio.sleep(NO_FDS_PAUSE_S)
                    continue
                if error.errno in _PEER_TROUBLE:
                    continue
                raise
            source = str(address[0])
            task = handshakes.create_task(_shake(connection, context, make), name="TLS handshake")
            task.add_done_callback(partial(door.leave, source))
            evicted = door.arrive(source, task)
            if evicted is not None:
                evicted[1].cancel()


def most_handshakes() -> int:
    """TLS handshakes at one time: a quarter of what the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, min(MOST_HANDSHAKES, soft // 4))


async def _shake(
    connection: socket.socket, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]
) -> None:
    loop = asyncio.get_running_loop()
    try:
        _tune(connection)
        await loop.connect_accepted_socket(
            make, connection, ssl=context, ssl_handshake_timeout=PROVE_WITHIN_S
        )
    except OSError:
        # Not TLS, given up, or reset: strangers knock; nothing was promised to them. (SSLError and the
        # handshake's timeout are OSErrors.)
        connection.close()
    except asyncio.CancelledError:
        connection.close()
        raise
    except Exception:  # a stranger's handshake, whatever it sets off, must not end the run
        log.exception("a TLS handshake failed in an unexpected way")
        connection.close()


def _tune(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
