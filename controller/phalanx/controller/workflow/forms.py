"""Forms of values that a card and a context have in common: what one takes, the other takes as well."""

from __future__ import annotations

from typing import Any

#: Longest text that is looked for in logs, and most of them in one list.
LOG_TEXT_LIMIT, LOG_TEXTS_LIMIT = 1000, 1000
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0", ""), False),
}


def truth(value: Any) -> Any:
    """A word as true or false; what is one already, 0, 1 and None stay. Raises ValueError for the rest."""
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    if value is None or isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return value
    raise ValueError("expected true or false")


def log_text(text: str) -> str:
    """A text that is looked for in the lines of logs. Raises ValueError."""
    if not text or "\n" in text or len(text) > LOG_TEXT_LIMIT:
        raise ValueError(f"expected a text of one line, 1 to {LOG_TEXT_LIMIT} characters")
    return text


def log_texts(texts: list[str] | None) -> list[str] | None:
    """A list of them. One without any would be taken for one that is not there: it is refused."""
    if texts is not None and not 1 <= len(texts) <= LOG_TEXTS_LIMIT:
        raise ValueError(
            f"expected 1 to {LOG_TEXTS_LIMIT} texts; to look for none, say log_error_pattern_scan: false"
        )
    return texts
