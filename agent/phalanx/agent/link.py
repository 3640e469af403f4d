"""One connection to the controller: the asyncio shell around ``AgentConnection``: a socket, nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
import time
from collections.abc import Callable
from typing import cast

from phalanx.protocol.connection import AgentConnection, State, Timers
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import Hello, Kind, Message

#: Bytes handed to the transport beyond which log and bulk frames wait, so that control frames pass them.
WRITE_HIGH = 256 * 1024
#: Seconds for TCP, TLS and the handshake together.
CONNECT_WITHIN_S = 10.0


class LinkError(Exception):
    """No link to the controller; the message says which step failed."""


class PinMismatch(LinkError):
    """Something else than our controller answers at that address."""


def client_context() -> ssl.SSLContext:
    """TLS 1.3; who is at the other end is shown by the pin, not by names and dates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Link(asyncio.Protocol):
    """A connection in one of its lives. ``on_message`` gets what the controller says once both are proved.

    ``on_open`` is called in the moment in which the connection opens: what the lifeline is to send again is
    queued then, so whatever is sent after that must go to this link and to no other.
    """

    def __init__(
        self,
        pin: bytes,
        key: bytes,
        hello: Hello,
        lifeline: Lifeline,
        timers: Timers,
        on_message: Callable[[Message], None],
        on_open: Callable[[Link], None] = lambda link: None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._pin = pin
        self.connection = AgentConnection(pin, key, hello, lifeline, timers, time.monotonic())
        self._on_message = on_message
        self._on_open = on_open
        self._on_room = on_room
        self._transport: asyncio.Transport | None = None
        self._paused = False
        #: whether this link may say hello: of several that connect at once, only one may
        self.claim: Callable[[Link], bool] = lambda link: True
        self._claimed = False
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self.address = ""
        self.peer = ("", 0)
        #: whether the controller closed it in good order
        self.closed_by_peer = False

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(certificate).digest(), self._pin):
            self._over(PinMismatch("another certificate than our controller's answers there"))
            self._transport.abort()
            return
        sock = transport.get_extra_info("sockname")
        self.address = str(sock[0]) if sock else ""
        peer = transport.get_extra_info("peername")
        self.peer = (str(peer[0]), int(peer[1])) if peer else ("", 0)

    def data_received(self, data: bytes) -> None:
        if not self._claimed:
            if not self.claim(self):
                self.drop("another address was faster")
                return
            self._claimed = True
        was_open = self.is_open
        try:
            messages = self.connection.receive_data(data, time.monotonic(), time.time())
        except ProtocolError as error:
            self.drop(str(error))
            return
        if self.is_open and not was_open:
            self._on_open(self)
            if not self.opened.done():
                self.opened.set_result(None)
        for message in messages:
            # What was counted as received is handed over, even after one that breaks the rules.
            try:
                self._on_message(message)
            except ProtocolError as error:
                self.drop(str(error))
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed_by_peer = error is None and self.is_open
        self.connection.close()
        self._over(LinkError(f"the connection broke: {error}" if error else "the controller closed it"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()
        self._on_room()

    def _over(self, error: LinkError) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # retrieved: nobody may be waiting any more
        if not self.closed.done():
            self.closed.set_result(str(error))

    # --- for the owner

    @property
    def is_open(self) -> bool:
        """Whether both sides have proved themselves and messages can go out."""
        return self.connection.state is State.OPEN

    @property
    def paused(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._paused

    def send(self, kind: Kind, frame: bytes) -> None:
        """Send a frame made by ``frames.encode`` on an open link. Raises Overflow, with the link dropped."""
        try:
            self.connection.send_encoded(kind, frame)
        except ProtocolError as error:
            self.drop(str(error))
            raise
        self.flush()

    def waiting(self, kind: Kind) -> int:
        """Bytes of a lane that wait for the socket."""
        return self.connection.waiting(kind)

    def flush(self) -> None:
        """Hand to the transport what may go now."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        frames = self.connection.data_to_send(0 if self._paused else WRITE_HIGH)
        while frames:
            transport.write(b"".join(frames))
            frames = self.connection.data_to_send(0 if self._paused else WRITE_HIGH)

    def tick(self) -> None:
        """Heartbeat and judgement of the controller; drops the link when it is dead."""
        try:
            self.connection.on_time(time.monotonic(), time.time())
        except ProtocolError as error:
            self.drop(str(error))
            return
        self.flush()

    def drop(self, reason: str) -> None:
        """Close now."""
        self.connection.close()
        self._over(LinkError(reason))
        if self._transport is not None:
            self._transport.abort()

    async def finish(self, within_s: float) -> None:
        """Close after what is queued went out, or after ``within_s`` seconds."""
        if self._transport is None:
            return
        self.flush()
        self._transport.close()
        await asyncio.wait([self.closed], timeout=within_s)
        self.drop("the last words did not go out in time")


async def connect(
    address: tuple[str, int],
    make: Callable[[], Link],
    context: ssl.SSLContext,
    refused: set[tuple[str, int]],
) -> Link:
    """An open link over one address.

    ``refused`` holds the addresses whose machine says that nobody listens there; kept as it becomes known.
    Raises LinkError with words for people: what was tried and how far it came.
    """
    host, port = address
    where = f"{host}:{port}"
    link = None
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            _, protocol = await asyncio.get_running_loop().create_connection(
                make, host, port, ssl=context, ssl_handshake_timeout=CONNECT_WITHIN_S
            )
            link = protocol
            refused.discard(address)
            await link.opened
            return link
    except LinkError as error:
        raise type(error)(f"{where}: {error}") from None
    except (OSError, UnicodeError) as error:
        # A deadline of ours has no errno; the kernel's ETIMEDOUT has one. Both mean: nothing answers.
        # UnicodeError: a name that cannot be one of a host.
        if link is not None:
            link.drop("handshake not finished in time")
        words = getattr(error, "strerror", None) or str(error) or f"no answer within {CONNECT_WITHIN_S:g} s"
        if isinstance(error, ConnectionRefusedError):
            refused.add(address)
        raise LinkError(f"{where}: {words}") from None
    except asyncio.CancelledError:
        if link is not None:
            link.drop("another address was faster")
        raise


async def connect_any(
    addresses: tuple[tuple[str, int], ...],
    make: Callable[[], Link],
    context: ssl.SSLContext,
    refused: set[tuple[str, int]],
) -> Link:
    """The first link that opens over any address, all tried at once; only one at a time says hello.

    Raises LinkError naming every address and what happened there.
    """
    speaker: Link | None = None

    def claim(link: Link) -> bool:
        nonlocal speaker
        if speaker is not None and not speaker.closed.done():
            return False
        speaker = link
        return True

    def make_racer() -> Link:
        link = make()
        link.claim = claim
        return link

    attempts = [
        asyncio.create_task(connect(address, make_racer, context, refused), name=f"connect to {address[0]}")
        for address in addresses
    ]
    troubles: list[LinkError] = []
    winner: Link | None = None
    try:
        for finished in asyncio.as_completed(attempts):
            try:
                winner = await finished
                return winner
            except LinkError as error:
                troubles.append(error)
    finally:
        for attempt in attempts:
            attempt.cancel()
        for result in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(result, Link) and result is not winner:
                result.drop("another address was faster")
    raise LinkError("; ".join(map(str, troubles)) or "no address to try")
