"""What is remembered between commands: a folder per lab, and one list of claimed indexes per machine.

The folder (`/tmp/phalanx-lab-NAME`, or `$PHALANX_LAB_DIR`) is written before anything is started, so that
`down` can clean up after an `up` that was killed half-way. Everything that can be read from the machine
itself (links, shaping, frozen groups) is read there and not kept here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.topology import INDEXES, Request, Topology, check_name, preferred_index

CLAIMS = Path("/run/phalanx-lab")
# A lab of 200 nodes takes some 20 s to come up; whoever waits for it should not give up before.
LOCK_SECONDS = 180.0


def folder(name: str) -> Path:
    """The state folder of the lab of that name."""
    given = os.environ.get("PHALANX_LAB_DIR")
    path = Path(given) if given else Path("/tmp") / f"phalanx-lab-{check_name(name)}"
    if not path.is_absolute() or path.is_relative_to("/var") or path.is_relative_to("/run"):
        raise LabError(
            f"cannot keep a lab in {path}: nodes cover /var and /run; set PHALANX_LAB_DIR to a path elsewhere"
        )
    return path


@dataclass(frozen=True, slots=True)
class Record:
    """What lab.json holds. `complete` is false while `up` is at work, and stays so if it died."""

    name: str
    index: int
    request: Request
    complete: bool

    def write(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        new = state / "lab.json.new"
        new.write_text(json.dumps(asdict(self), indent=1))
        new.replace(state / "lab.json")

    def topology(self, state: Path) -> Topology:
        return Topology(self.name, self.index, state, self.request)


def read(state: Path) -> Record | None:
    """The record in a state folder; None when there is none that can be read."""
    try:
        fields = json.loads((state / "lab.json").read_text())
        return Record(
            fields["name"], fields["index"], Request.from_json(fields["request"]), fields["complete"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One `up` or `down` at a time on this machine. The folder of claims is the lock: no file is left."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        CLAIMS.mkdir(exist_ok=True)
        handle = os.open(CLAIMS, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() > deadline:
                raise LabError(
                    f"cannot start: another up or down has been at work for {LOCK_SECONDS:.0f} s; "
                    f"find it with `fuser {CLAIMS}`"
                ) from None
            time.sleep(0.05)
            continue
        # The last `down` removes the folder; a lock on a removed folder excludes no one.
        if CLAIMS.exists() and os.path.samestat(os.fstat(handle), CLAIMS.stat()):
            break
        os.close(handle)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            CLAIMS.rmdir()
        os.close(handle)


def claims() -> dict[int, tuple[str, Path]]:
    """Index -> (name, state folder) of every lab of this machine."""
    found: dict[int, tuple[str, Path]] = {}
    for path in CLAIMS.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            name, state = path.read_text().splitlines()
            found[int(path.name)] = (name, Path(state))
    return found


def claim(name: str, state: Path) -> int:
    """Take an index that no lab and no interface of the machine uses. Call with the lock held."""
    taken = claims()
    first = preferred_index(name)
    for step in range(INDEXES):
        index = (first + step) % INDEXES
        mine = taken.get(index) == (name, state)
        if mine or (index not in taken and not Path(f"/sys/class/net/lab{index}").exists()):
            (CLAIMS / str(index)).write_text(f"{name}\n{state}\n")
            return index
    raise LabError(f"cannot find a free index for lab {name!r}: {INDEXES} labs are up; take some down")


def release(index: int) -> None:
    (CLAIMS / str(index)).unlink(missing_ok=True)
