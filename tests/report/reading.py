"""A page as a parser sees it: its elements, their attributes, and its words."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(slots=True)
class Seen:
    """What is in a page. ``inline``: the text of script and style elements by their name."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    inline: dict[str, list[str]] = field(default_factory=lambda: {"script": [], "style": []})

    @property
    def text(self) -> str:
        """All words, without those of scripts and style sheets."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen = Seen()
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.seen.inline:
            self.seen.inline[self._inside].append(data)
        else:
            self.seen.words.append(data)


def seen(page: bytes) -> Seen:
    """Read a page."""
    parser = _Parser()
    parser.feed(page.decode("utf-8"))
    parser.close()
    return parser.seen
