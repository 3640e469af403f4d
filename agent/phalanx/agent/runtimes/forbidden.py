"""What this node gives no container, whatever a run allows: said by whoever keeps the node.

``/etc/phalanx/forbid`` holds words of ``--allow``, or ``all``, divided by spaces or commas, ``#`` beginning a
comment; ``PHALANX_FORBID`` of the agent's environment holds the same. Both count. What cannot be read or
understood forbids everything: a misspelt word must not open the node.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from phalanx.protocol.messages import Allowance

FILE = Path("/etc/phalanx/forbid")
VARIABLE = "PHALANX_FORBID"
#: What is longer is no list of eight words.
_MOST_BYTES = 64 * 1024


def forbidden_here(environ: Mapping[str, str] = os.environ, file: Path = FILE) -> dict[Allowance, str]:
    """What is forbidden, each with where that is said. Read anew for each case: it is two small looks."""
    found = parse(environ.get(VARIABLE, ""), VARIABLE)
    try:
        with file.open("rb") as handle:
            raw = handle.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return found
    except OSError as error:
        return _everything(f"{file} cannot be read ({error.strerror or error})") | found
    if len(raw) > _MOST_BYTES:
        return _everything(f"{file} is longer than {_MOST_BYTES} bytes") | found
    return parse(raw.decode("utf-8", "backslashreplace"), str(file)) | found


def parse(text: str, origin: str) -> dict[Allowance, str]:
    """The words of a text. An unknown one forbids everything, and is named."""
    by_word = {one.value: one for one in Allowance}
    found: dict[Allowance, str] = {}
    for line in text.splitlines():
        for word in re.split(r"[\s,]+", line.partition("#")[0].strip()):
            if word in by_word:
                found[by_word[word]] = origin
            elif word == "all":
                found |= _everything(origin)
            elif word:
                return _everything(
                    f"{origin} holds {word[:64]!r}, which is no word of it, so all is forbidden"
                )
    return found


def _everything(words: str) -> dict[Allowance, str]:
    return dict.fromkeys(Allowance, words)
