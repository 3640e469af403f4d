"""The blobs that a node keeps between runs, by digest, up to a limit; those not used for longest go first.

Any file of it may be deleted at any time: a blob is there whole, or it is fetched. What a process of the user
works with is locked and stays; see ``spool``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from phalanx.agent.relay.descriptor import Descriptor, open_own
from phalanx.agent.relay.place import private_directory, refuse_shared
from phalanx.agent.relay.spool import Spool, SpoolError, never
from phalanx.protocol.blob import Manifest

#: Bytes that are left free on the disk: others live on it too.
RESERVE_BYTES = 256 << 20
#: To which part of the limit blobs are evicted once it is passed.
LOW_WATER = 0.9


@dataclass(frozen=True, slots=True)
class Lease:
    """A whole blob that stays where it is until ``release``, or until the process ends."""

    path: Path
    _file: Descriptor

    def release(self) -> None:
        """It may be evicted again."""
        self._file.unlock()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of the cache: its last use and the bytes that it takes on the disk."""

    path: Path
    used_at: float
    taken: int


class BlobCache:
    """Blobs below ``directory``. Safe to use from any thread.

    Raises PlaceRefused for a directory that is shared or open to others, OSError when it cannot be made.
    """

    def __init__(self, directory: Path, limit_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.folder = directory / "blobs" / "sha256"
        for part in (directory, self.folder.parent, self.folder):
            private_directory(part)
        refuse_shared(self.folder)
        self._directory = directory
        self._limit = limit_bytes
        self._reserve = reserve_bytes
        self._lock = threading.Lock()
        self._users: dict[Spool, int] = {}

    def open(self, manifest: Manifest) -> Spool:
        """The blob, whole or to be fetched: one object for all who open it by the same manifest. To be closed
        with ``close``."""
        with self._lock:
            same = (spool for spool in self._users if _are_same(spool.manifest, manifest))
            spool = next(same, None) or Spool(self._path(manifest.blob), manifest)
            self._users[spool] = self._users.get(spool, 0) + 1
        return spool

    def close(self, spool: Spool) -> None:
        """One user of the blob less; with the last one it may be evicted."""
        with self._lock:
            users = self._users.pop(spool, 0)
            if users > 1:
                self._users[spool] = users - 1
                return
        spool.close()

    def claim(self, spool: Spool, stopped: Callable[[], bool] = never) -> bool:
        """Become the one who writes the blob, with room made for it; see ``Spool.claim``.

        Raises SpoolError, also when there is not enough room.
        """
        if spool.adopt() or not spool.claim(stopped):
            return False
        try:
            self.check_room(0)
        except SpoolError:
            spool.unclaim()
            raise
        return True

    def claim_apart(self, spool: Spool) -> bool:
        """Write the blob beside another process that does not come on, with room made for all of it; see
        ``Spool.claim_apart``.

        Raises SpoolError, also when there is not enough room.
        """
        size, could = spool.manifest.size, self.free_bytes()
        if size > could:  # nothing is evicted in vain
            raise self._no_room(size, could + self._reserve)
        self.check_room(size)
        return spool.claim_apart()

    def whole(self, diff_id: bytes, size: int) -> Path | None:
        """Where a blob lies whole, None when it does not."""
        path = self._path(diff_id)
        with self._lock:
            held = [spool for spool in self._users if spool.manifest.blob == diff_id]
        if any(spool.whole and spool.manifest.size == size for spool in held):
            return path
        try:
            there = path.lstat().st_size == size and not _beside(path, ".bitmap").exists()
        except OSError:
            return None
        return path if there else None

    def lease(self, diff_id: bytes, size: int) -> Lease | None:
        """Keep a whole blob from eviction; None when there is none."""
        path = self.whole(diff_id, size)
        if path is None:
            return None
        try:
            file = open_own(path, os.O_RDONLY)
            if not file.lock(fcntl.LOCK_SH) or not file.is_at(path):
                return None
            os.utime(path)
        except OSError:
            return None
        return Lease(path, file)

    def drop_damaged(self, blobs: Iterable[bytes]) -> list[bytes]:
        """Remove those of these blobs that lie whole and are not what they are called: disks forget. Slow.

        Which ones, in their order; one that cannot be read is removed as well. Raises OSError.
        """
        return [blob for blob in dict.fromkeys(blobs) if self._drop_if_damaged(self._path(blob), blob)]

    def _drop_if_damaged(self, path: Path, blob: bytes) -> bool:
        try:
            with path.open("rb") as file:
                sound = hashlib.file_digest(file, "sha256").digest() == blob
        except FileNotFoundError:
            return False
        except OSError:
            sound = False
        if not sound:
            path.unlink(missing_ok=True)
        return not sound

    # --- room

    def check_room(self, size: int) -> None:
        """Make room for ``size`` bytes and for the rest of all that is being fetched.

        Raises SpoolError when there is too little even so.
        """
        with self._lock:
            spools = list(self._users)
        needed = size + sum(s.manifest.size - s.verified for s in spools if s.writing)
        self._evict(needed)
        free = self._free()
        if needed + self._reserve > free:
            raise self._no_room(needed, free)

    def _no_room(self, needed: int, free: int) -> SpoolError:
        return SpoolError(
            f"cannot keep layers in {self._directory}: {needed} bytes and {self._reserve} in reserve are "
            f"needed, {free} are free; make room there, or set PHALANX_CACHE_DIR of the agents to a "
            "larger disk of the node"
        )

    def free_bytes(self, but: Iterable[bytes] = ()) -> int:
        """What blobs could take now, evicting all that is not in use; ``but``: blobs that are to stay."""
        stay = {self._path(blob) for blob in but}
        evictable = sum(
            entry.taken
            for entry in self._entries()
            if entry.path not in stay and _unused(entry.path) is not None
        )
        return max(0, self._free() + evictable - self._reserve)

    def on_disk_of(self, folder: str) -> bool:
        """Whether a folder and the blobs share their room; False for "", and one that cannot be seen."""
        try:
            return bool(folder) and Path(folder).stat().st_dev == self.folder.stat().st_dev
        except OSError:
            return False

    def kept(self) -> tuple[int, int]:
        """How many blobs lie here, whole or begun, and the bytes that they take on the disk."""
        entries = self._entries()
        return len(entries), sum(entry.taken for entry in entries)

    def prune(self) -> int:
        """Remove every blob with which no process works; the bytes that are free again."""
        return sum(entry.taken for entry in self._entries() if _remove_unused(entry.path))

    def _free(self) -> int:
        about = os.statvfs(self.folder)
        return about.f_bavail * about.f_frsize

    def _evict(self, needed: int) -> None:
        """Those not used for longest, until limit and disk hold ``needed`` bytes more, or nothing can go."""
        entries = sorted(self._entries(), key=lambda entry: (entry.used_at, entry.path.name))
        kept = sum(entry.taken for entry in entries)
        over = kept + needed > self._limit
        for entry in entries:
            short = needed + self._reserve > self._free()
            if not short and (not over or kept + needed <= self._limit * LOW_WATER):
                return
            if _remove_unused(entry.path):
                kept -= entry.taken

    def _entries(self) -> list[_Entry]:
        found = []
        for one in os.scandir(self.folder):
            if one.name.endswith(".bitmap"):
                continue
            try:
                about = one.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(_Entry(self.folder / one.name, about.st_mtime, about.st_blocks * 512))
        return found

    def _path(self, blob: bytes) -> Path:
        return self.folder / blob.hex()


def _are_same(one: Manifest, other: Manifest) -> bool:
    """Whether they stay equal: digests may still be added to the one and not to the other."""
    return one is other or (one.whole and one == other)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name.removesuffix(".part") + suffix)


def _unused(path: Path) -> Descriptor | None:
    """The file, locked against all others, when no process works with it."""
    try:
        file = open_own(path, os.O_RDONLY)
    except OSError:
        return None
    return file if file.lock(fcntl.LOCK_EX) and file.is_at(path) else None


def _remove_unused(path: Path) -> bool:
    file = _unused(path)
    if file is None:
        return False
    path.unlink(missing_ok=True)
    _beside(path, ".bitmap").unlink(missing_ok=True)
    file.unlock()
    return True
