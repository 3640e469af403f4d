"""The lease: a file with the moment until which a place may go on, in seconds since boot.

Whoever holds the workload (PID 1 of its container, or the supervisor of its processes) reads the file each
second and ends everything once that moment has passed; no one has to be alive for that but the holder. Boot
time is used because it goes on while a machine is suspended and no clock correction moves it; the boot's id
beside it makes a lease of an earlier boot void.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

#: Bytes of the file, always, so that it can be overwritten in place on a disk that is full.
RECORD_BYTES = 64

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime() -> float:
    """Seconds since this machine started, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """What tells this boot of the machine from any other; "" if the kernel does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Term:
    """What a lease file says: until when, in seconds since the boot with that id."""

    until_s: int
    boot: str

    def over(self, now_s: float, boot: str) -> bool:
        """True once the lease does not hold any more."""
        return now_s >= self.until_s or (bool(self.boot) and bool(boot) and self.boot != boot)


def read(path: Path) -> Term | None:
    """What the lease file says; None when there is none that can be understood."""
    try:
        words = path.read_text().split()
        return Term(int(words[0]), words[1] if len(words) > 1 else "")
    except (OSError, ValueError, IndexError):
        return None


class Lease:
    """The writing end of a lease file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def renew(self, until_boottime_s: float) -> None:
        """Let the place go on until that moment (``boottime() + seconds``). Raises OSError.

        The file is replaced, so that no reader sees half of it; where the disk is full it is overwritten.
        """
        record = f"{int(until_boottime_s)} {boot_id()}".ljust(RECORD_BYTES - 1)[: RECORD_BYTES - 1] + "\n"
        fresh = self.path.with_name(self.path.name + ".tmp")
        try:
            # readable by the user of a container; its directory is closed to everyone else
            _write(fresh, record.encode(), os.O_CREAT | os.O_TRUNC)
            fresh.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            _write(self.path, record.encode(), 0)

    def end(self) -> None:
        """Let the place end now. Raises OSError."""
        self.renew(0)

    def over(self) -> bool:
        """True once the lease does not hold any more, or cannot be read."""
        term = read(self.path)
        return term is None or term.over(boottime(), boot_id())


def _write(path: Path, record: bytes, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, record)
    finally:
        os.close(descriptor)
