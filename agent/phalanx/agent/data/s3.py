"""Objects of S3 and its kin to files, by obstore: many at a time, each verified, memory bounded.

A file counts as whole when its bytes are as many as the store says and, where the store's ETag is an MD5,
when that is theirs. It is the MD5 for what was put in one piece and not encrypted by a key of the customer's
or of KMS (Amazon S3 API, "Checking object integrity"); the store says in a header whether it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.agent.data.holding import Holding
from phalanx.agent.data.keys import Object, as_files
from phalanx.agent.data.progress import Progress
from phalanx.agent.data.progress import size as in_words
from phalanx.agent.data.request import DataError, Source

if TYPE_CHECKING:
    from obstore.store import S3Store

#: Objects on their way at one time.
AT_ONCE = 16
#: Bytes that are asked of a stream at a time. 16 objects of 48 MiB at once took 107 MB of memory with it, and
#: 282 MB with four times as much, which was no faster.
CHUNK_BYTES = 1 << 20
#: Tries of one object: a connection may break within it.
TRIES = 3
CONNECT_S = "10s"
#: A request may take this long without a byte.
QUIET_S = "60s"
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


@dataclass(slots=True)
class Bucket:
    """One data set in a store."""

    source: Source
    store: S3Store
    say: Callable[[str], None]
    files: dict[str, Object] = field(default_factory=dict)
    _md5: bool = True

    @property
    def where(self) -> str:
        """For people and for what is known of a cache: which store and which part of it."""
        source = self.source
        at = f" at {source.endpoint}" if source.endpoint else ""
        return f"s3://{source.bucket}/{source.key}{at}"

    def why_not(self) -> str:
        """Why nothing can be had of it, "" when it can; then ``files`` is known."""
        try:
            self.files = asyncio.run(self._listed())
        except DataError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - the client raises kinds of its own for every answer
            return explained(error, self.where)
        return "" if self.files else f"there is nothing at {self.where}"

    async def _listed(self) -> dict[str, Object]:
        key = self.source.key
        found = [] if key.endswith("/") or not key else await self._single(key)
        return as_files(found or [one async for one in self._below(key)], key)

    async def _single(self, key: str) -> list[Object]:
        """The object of just that key, if there is one."""
        import obstore

        try:
            about = await obstore.head_async(self.store, key)
        except FileNotFoundError:
            return []
        return [Object(key, about["size"], about.get("e_tag") or "")]

    async def _below(self, key: str) -> AsyncIterator[Object]:
        import obstore

        async for page in obstore.list(self.store, prefix=key.rstrip("/") or None, chunk_size=1000):
            for about in page:
                yield Object(about["path"], about["size"], about.get("e_tag") or "")

    def fetch(self, holding: Holding, *, alone: bool) -> int:
        """Make the folder hold the data set; its bytes. ``alone``: nothing else may be in it.

        Raises DataError, OSError.
        """
        wanted = {
            path: found for path, found in self.files.items() if not holding.has(path, found.size, found.etag)
        }
        total = sum(found.size for found in self.files.values())
        missing = sum(found.size for found in wanted.values())
        if len(wanted) < len(self.files):
            self.say(f"{len(self.files) - len(wanted)} of {len(self.files)} files are here already")
        holding.check_room(missing)
        progress = Progress(missing, len(wanted), self.say)
        asyncio.run(self._fetch_all(holding, wanted, progress))
        if alone and (removed := holding.drop_others(self.files)):
            self.say(f"{removed} files that are not in the store were removed")
        seconds = progress.seconds()
        rate = in_words(missing / max(seconds, 1e-3))
        self.say(f"{in_words(missing)} in {len(wanted)} files came in {seconds:.1f} s ({rate}/s)")
        return total

    async def _fetch_all(self, holding: Holding, wanted: dict[str, Object], progress: Progress) -> None:
        waiting = iter(sorted(wanted.items()))

        async def work(number: int) -> None:
            for path, found in waiting:
                await self._fetch(holding, path, found, holding.parts / str(number), progress)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(AT_ONCE, len(wanted))):
                    group.create_task(work(number), name=f"objects, line {number}")
        except ExceptionGroup as errors:  # the first one decides, the others follow from it
            raise errors.exceptions[0] from None

    async def _fetch(
        self, holding: Holding, path: str, found: Object, part: Path, progress: Progress
    ) -> None:
        if not found.size and not await self._single(found.key):
            return  # a folder: stores list it without the slash at its end
        for attempt in range(1, TRIES + 1):
            try:
                digest = await self._download(found, part, progress)
                break
            except Exception as error:
                if isinstance(error, DataError) or _is_final(error) or attempt == TRIES:
                    raise _as_data_error(error, f"{self.where}: {found.key}") from error
                self.say(f"again: {found.key}: {_first_line(error)}")
        await asyncio.to_thread(self._verify, found, digest)
        await asyncio.to_thread(holding.keep, part, path, found.etag)
        progress.file_came()

    async def _download(self, found: Object, part: Path, progress: Progress) -> str:
        """Bytes into a part, in pieces; their MD5. What was counted of a broken try is taken back."""
        import obstore

        options: Any = {"if_match": found.etag} if found.etag else {}
        answer = await obstore.get_async(self.store, found.key, options=options)
        digest = hashlib.md5(usedforsecurity=False)
        came = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(part, flags, 0o600)
        try:
            async for piece in answer.stream(min_chunk_size=CHUNK_BYTES):
                came += len(piece)
                if came > found.size:
                    break
                await asyncio.to_thread(_write, fd, memoryview(piece), digest)
                progress.came(len(piece))
        except BaseException:
            progress.done -= came
            raise
        finally:
            os.close(fd)
        if came != found.size:
            progress.done -= came
            raise _Short(f"{came} bytes came, the store says {found.size}")
        return digest.hexdigest()

    def _verify(self, found: Object, digest: str) -> None:
        """Raises DataError for bytes that are not those of the store."""
        said = _MD5.fullmatch(found.etag)
        if not self._md5 or said is None or said[1] == digest:
            return
        if encryption := self._encryption(found.key):
            self._md5 = False
            self.say(f"the store encrypts by {encryption}: its ETags are no MD5s, sizes alone are verified")
            return
        raise DataError(
            f"{self.where}: {found.key}: its bytes are not what the store says they are (MD5 {digest}, "
            f"ETag {said[1]}); look at the store or at what is between it and this node"
        )

    def _encryption(self, key: str) -> str:
        """The key by which the store encrypts an object so that its ETag is no MD5, "" for none."""
        import obstore

        url = obstore.sign(self.store, "HEAD", key, timedelta(minutes=5))
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30) as answer:  # noqa: S310
                headers = answer.headers
        except OSError:
            return ""
        kind = headers.get("x-amz-server-side-encryption", "")
        customer = headers.get("x-amz-server-side-encryption-customer-algorithm", "")
        return kind if kind.startswith("aws:kms") else customer and "a key of the customer's"


class _Short(Exception):
    """A stream ended before or after its object."""


def _write(fd: int, piece: memoryview, digest: Any) -> None:
    digest.update(piece)
    while piece:
        piece = piece[os.write(fd, piece) :]


def open_bucket(source: Source, library: str, say: Callable[[str], None]) -> Bucket:
    """The store of a source. Raises DataError when the client cannot be used here, or not so."""
    client = _client(library)
    options: dict[str, Any] = {"region": source.region, "virtual_hosted_style_request": False}
    if source.endpoint:
        options["endpoint"] = source.endpoint
    if source.user:
        options |= {"access_key_id": source.user, "secret_access_key": source.password}
    else:
        options["skip_signature"] = True
    try:
        store = client.S3Store(
            source.bucket,
            **options,
            client_options={"allow_http": True, "connect_timeout": CONNECT_S, "read_timeout": QUIET_S},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
        )
    except Exception as error:
        raise DataError(f"the bucket {source.bucket!r} cannot be used: {_first_line(error)}") from error
    return Bucket(source, store, say)


def _client(library: str) -> Any:
    """obstore, of the node itself or of the bundle that came with the run. Raises DataError."""
    if library and library not in sys.path:
        sys.path.append(library)
    try:
        import obstore.store
    except ImportError as error:
        machine = os.uname().machine
        raise DataError(
            f"the S3 client that came with the run cannot be used on this node ({machine}, Python "
            f"{sys.version_info.major}.{sys.version_info.minor}): {error}; install obstore for the agent's "
            "Python on the node"
        ) from error
    return obstore.store


#: Answers of a store that are the same the next time.
_FINAL = ("FileNotFoundError", "PermissionDeniedError", "PreconditionError", "UnauthenticatedError")


def _is_ours(error: Exception) -> bool:
    """An error of this node's disk."""
    return isinstance(error, OSError) and error.errno is not None


def _is_final(error: Exception) -> bool:
    """Whether another try would not help."""
    return _is_ours(error) or type(error).__name__ in _FINAL


def _as_data_error(error: Exception, where: str) -> Exception:
    if isinstance(error, DataError) or _is_ours(error):
        return error
    return DataError(explained(error, where))


_HINTS = (
    ("SignatureDoesNotMatch", "the password is not that of the user"),
    ("InvalidAccessKeyId", "the store does not know the user"),
    ("AccessDenied", "the user may not read it"),
    ("NoSuchBucket", "there is no such bucket"),
    ("412 Precondition", "it has changed since it was listed; run again"),
    ("403 Forbidden", "it refuses the user or the password"),
    ("error sending request", "it cannot be reached"),
)


def explained(error: Exception, where: str) -> str:
    """A client's error in a line; what it says of credentials is left out."""
    words = str(error)
    hint = next((hint for mark, hint in _HINTS if mark in words), "")
    if not hint and isinstance(error, FileNotFoundError):
        hint = "it is not there"
    return f"{where}: {hint}" if hint else f"{where}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    words = str(error).strip() or type(error).__name__
    return " ".join(words.splitlines()[0].split())[:400]
