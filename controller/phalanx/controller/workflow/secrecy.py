"""Which names are names of secrets. A value under such a name, or from such a variable, is shown nowhere."""

from __future__ import annotations

import re

_LOOKS_SECRET = re.compile(
    r"MAD_SECRETS|PASSWORD|PASSWD|(^|_)SECRET(_|$)|(^|_)TOKEN$|CREDENTIAL|(API|ACCESS|PRIVATE|SECRET|AUTH)_?KEY",
    re.IGNORECASE,
)


def looks_secret(name: str) -> bool:
    """Whether a variable of this name is treated as a secret without being told so."""
    return _LOOKS_SECRET.search(name) is not None
