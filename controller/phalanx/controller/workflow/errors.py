"""Input that cannot be used: the message names file and key path, what was expected, and the next step."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(Exception):
    """What the user gave cannot become a plan. Nothing has been touched; the message is for the user."""


class DiscoveryError(InputError):
    """No model answers to what was asked for."""


class BuildInputError(InputError):
    """No image can be made for a model of a run."""


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known words that are spelled most alike, best first; case does not count."""
    import difflib  # of use to few, and it takes as long to import as the rest of an error

    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(name.lower(), name)
    close = difflib.get_close_matches(word.lower(), by_lower, n=most, cutoff=0.6)
    return [by_lower[name] for name in close]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest spellings, or "" when none is near."""
    close = nearest(word, known)
    return f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
