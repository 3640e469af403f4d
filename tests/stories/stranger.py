"""Attacks on a controller's port by someone who knows all that is public. Prints what came of them as JSON.

    python -m tests.stories.stranger WHAT HOST PORT RUN_ID BUILD COUNT

It is run as another user. ``forge``: joins with the right names and a wrong key. ``idle``: connections that
say nothing. ``replay``: the hello of the agent of the first node, made for another connection (stdin: the
secret in hex and the incarnation). ``squat``: listens on that port and those around it until stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import socket
import ssl
import sys
import time
from dataclasses import dataclass, replace

from phalanx.protocol.connection import AgentConnection, State, Timers
from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.handshake import join_key
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import Channel, Hello

#: Connections at one time.
AT_ONCE = 32
#: Longest wait for an answer, in seconds.
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Victim:
    host: str
    port: int
    run_id: str
    build: str


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def hello(victim: Victim, number: int) -> Hello:
    rank = number % 4
    return Hello(
        version=1,
        run_id=victim.run_id,
        channel=Channel.CONTROL if number % 3 else Channel.BULK,
        node=f"n{rank + 1}",
        node_rank=rank,
        incarnation=secrets.token_hex(16),
        epoch_seen=1,
        resume=number % 5 == 0,
        agent_build=victim.build,
        features=(),
        nonce=secrets.token_bytes(32),
        mac=bytes(32),
    )


async def connect(
    victim: Victim, tls: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection(victim.host, victim.port, ssl=tls)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return reader, writer, hashlib.sha256(certificate).digest()


def side(certificate: bytes, key: bytes, words: Hello) -> AgentConnection:
    return AgentConnection(certificate, key, words, Lifeline(), Timers(1.0, 60.0), time.monotonic())


async def join(victim: Victim, tls: ssl.SSLContext, words: Hello, key: bytes, swap: bool = False) -> bool:
    """One attempt; whether the controller welcomed it. ``swap``: answer with what was made for another."""
    reader, writer, certificate = await connect(victim, tls)
    try:
        mine = side(certificate, key, words)
        mine.receive_data(await reader.read(65536), time.monotonic(), time.time())
        answer = b"".join(mine.data_to_send())
        if swap:
            writer.close()
            reader, writer, _ = await connect(victim, tls)
            await reader.read(65536)
        writer.write(answer)
        data = await reader.read(65536)
        with contextlib.suppress(ProtocolError):
            mine.receive_data(data, time.monotonic(), time.time())
        return bool(data) or mine.state is State.OPEN
    finally:
        writer.close()


async def attempts(victim: Victim, count: int, known: list[str]) -> dict[str, int]:
    tls, turn = context(), asyncio.Semaphore(AT_ONCE)
    outcome = {"welcomed": 0, "refused": 0, "broken": 0}

    async def one(number: int) -> None:
        key, words = secrets.token_bytes(32), hello(victim, number)
        if known:
            words = replace(hello(victim, 4), incarnation=known[1], resume=False)
            key = join_key(bytes.fromhex(known[0]), victim.run_id, words.node, words.node_rank)
        async with turn:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    in_ = await join(victim, tls, words, key, swap=bool(known))
                    outcome["welcomed" if in_ else "refused"] += 1
            except (OSError, ssl.SSLError, ProtocolError):
                outcome["broken"] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))
    return outcome


async def idle(victim: Victim, count: int) -> dict[str, int]:
    """Half of them silent before TLS, half after it, until stdin ends."""
    tls, held = context(), []
    for number in range(count):
        with contextlib.suppress(OSError):
            held.append(
                await asyncio.open_connection(victim.host, victim.port, ssl=tls if number % 2 else None)
            )
    print(json.dumps({"held": len(held)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return {"held": len(held)}


async def squat(victim: Victim, count: int) -> dict[str, int]:
    heard = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        writer.write(b"hello, I am your controller\n")
        await reader.read()

    servers = []
    for port in range(victim.port - count, victim.port + count):
        with contextlib.suppress(OSError):
            servers.append(await asyncio.start_server(answer, victim.host, port, family=socket.AF_INET))
    print(json.dumps({"ports": len(servers)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return {"heard": heard}


async def main(what: str, host: str, port: str, run_id: str, build: str, count: str) -> dict[str, int]:
    victim = Victim(host, int(port), run_id, build)
    if what == "idle":
        return await idle(victim, int(count))
    if what == "squat":
        return await squat(victim, int(count))
    known = sys.stdin.readline().split() if what == "replay" else []
    return await attempts(victim, int(count), known)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))), flush=True)
