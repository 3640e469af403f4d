"""Two ends of one connection in memory: a controller and an agent that exchange bytes under one clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from phalanx.protocol import handshake
from phalanx.protocol.connection import AgentConnection, Connection, ControllerConnection, Timers
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import Channel, Hello, Message, Welcome

RUN = "20261122-020124-demo-7f3a"
SECRET = b"s" * 32
CERTIFICATE = b"c" * 32
SESSION_KEY = b"k" * 32
JOIN_KEY = handshake.join_key(SECRET, RUN, "n1", 1)
HELLO = Hello(
    version=0,
    run_id=RUN,
    channel=Channel.CONTROL,
    node="n1",
    node_rank=1,
    incarnation="i1",
    epoch_seen=0,
    resume=False,
    agent_build="b" * 64,
    features=("holes",),
    nonce=b"a" * 32,
    mac=bytes(32),
)
WELCOME = Welcome(
    version=1,
    epoch=1,
    session_key=SESSION_KEY,
    heartbeat_s=2.0,
    lease_s=30.0,
    features=("holes",),
    mac=bytes(32),
)
#: How the bytes of one side are changed on their way.
Wire = Callable[[bytes], bytes]


def as_it_is(data: bytes) -> bytes:
    """A wire that changes nothing."""
    return data


@dataclass
class Pair:
    """Both ends. ``step``: bytes handed over at a time (0: all at once)."""

    hello: Hello = HELLO
    agent_key: bytes = JOIN_KEY
    controller_key: bytes = JOIN_KEY
    welcome: Welcome = WELCOME
    agent_sees: bytes = CERTIFICATE
    controller_has: bytes = CERTIFICATE
    nonce: bytes = b"n" * 32
    timers: Timers = field(default_factory=Timers)
    agent_lifeline: Lifeline = field(default_factory=Lifeline)
    controller_lifeline: Lifeline = field(default_factory=Lifeline)
    step: int = 0
    now: float = 100.0
    to_agent: Wire = as_it_is
    to_controller: Wire = as_it_is
    said_by_controller: bytes = b""
    said_by_agent: bytes = b""
    at_controller: list[Message] = field(default_factory=list)
    at_agent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.controller = ControllerConnection(self.controller_has, self.nonce, self.timers, self.now)
        self.agent = AgentConnection(
            self.agent_sees, self.agent_key, self.hello, self.agent_lifeline, self.timers, self.now
        )

    def deliver(self, data: bytes, to: Connection) -> list[Message]:
        """Hand bytes over in steps; what came out."""
        step = self.step or max(1, len(data))
        got: list[Message] = []
        for start in range(0, len(data), step):
            got += to.receive_data(data[start : start + step], self.now, self.now)
        return got

    def controller_speaks(self) -> bytes:
        """What the controller has to say crosses the wire."""
        data = self.to_agent(b"".join(self.controller.data_to_send()))
        self.said_by_controller += data
        self.at_agent += self.deliver(data, self.agent)
        return data

    def agent_speaks(self) -> bytes:
        """What the agent has to say crosses the wire."""
        data = self.to_controller(b"".join(self.agent.data_to_send()))
        self.said_by_agent += data
        self.at_controller += self.deliver(data, self.controller)
        return data

    def shake(self) -> Pair:
        """The whole handshake."""
        self.controller_speaks()
        self.agent_speaks()
        self.controller.welcome(self.controller_key, self.welcome, self.controller_lifeline, self.now)
        self.controller_speaks()
        return self

    def talk(self) -> None:
        """Both say what they have to say."""
        self.controller_speaks()
        self.agent_speaks()

    def pass_time(self, seconds: float) -> None:
        """Time goes by, in heartbeats; both sides are on time and talk."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + self.timers.heartbeat_s)
            self.controller.on_time(self.now, self.now)
            self.agent.on_time(self.now, self.now)
            self.talk()


def on_bulk(pair_hello: Hello = HELLO) -> Hello:
    """The hello of a bulk connection."""
    return replace(pair_hello, channel=Channel.BULK, resume=True)
