"""A file server behind ssh, in this process: asyncssh asks for the password, the real rsync answers."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import asyncssh

USER, PASSWORD = "keeper", 'canary pass\'word $HOME "91c"'


@dataclass(slots=True)
class FileServer:
    """``asked``: commands that were run; ``tries``: passwords that were tried."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    tries: int = 0


class _Door(asyncssh.SSHServer):
    """Lets in who has the password, by either way that servers ask for one."""

    def __init__(self, server: FileServer, *, keyboard: bool) -> None:
        self._server = server
        self._keyboard = keyboard

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return not self._keyboard

    def validate_password(self, username: str, password: str) -> bool:
        self._server.tries += 1
        return (username, password) == (USER, PASSWORD)

    def kbdint_auth_supported(self) -> bool:
        return self._keyboard

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> asyncssh.KbdIntChallenge:
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: asyncssh.KbdIntResponse) -> bool:
        return self.validate_password(username, responses[0])


@contextmanager
def file_server(*, keyboard: bool = False) -> Iterator[FileServer]:
    """A server on a free port, in a thread of its own."""
    server, ready, over = FileServer(), threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    async def answer(process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        server.asked.append(command)
        if not command.startswith("rsync --server"):
            process.exit(127)
            await process.wait_closed()
            return
        local = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await process.redirect(stdin=local.stdin, stdout=local.stdout, stderr=local.stderr)
        process.exit(await local.wait())
        await process.wait_closed()

    async def serve() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        listener = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Door(server, keyboard=keyboard),
            server_host_keys=[key],
            process_factory=answer,
            encoding=None,
        )
        server.port = listener.get_port()
        ready.set()
        await asyncio.to_thread(over.wait)
        listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await listener.wait_closed()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(20)
        yield server
    finally:
        over.set()
        thread.join()
        loop.close()
