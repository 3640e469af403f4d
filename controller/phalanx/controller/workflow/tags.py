"""Tags: how models are chosen on the command line.

``T`` takes models with that name or tag, ``all`` takes all; ``S/T`` looks among the models of ``scripts/S/``
only; ``T:k=v:flag`` appends ``--k v --flag`` to the arguments of what it takes. Models come in the order of
the tags, then of the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .card import ModelCard
from .errors import DiscoveryError, did_you_mean

ALL = "all"


@dataclass(frozen=True, slots=True)
class Tag:
    """A parsed tag. ``scope`` "" for all models; ``extra`` is what it appends to the arguments."""

    text: str
    word: str
    scope: str = ""
    extra: str = ""

    def takes(self, card: ModelCard) -> bool:
        """Whether this tag chooses the card."""
        if self.scope:
            if not card.name.startswith(self.scope + "/"):
                return False
            return self.word in (*card.tags, ALL) or card.name == self.text
        return self.word in (card.name, *card.tags, ALL)


def split_tags(values: Iterable[str]) -> list[str]:
    """``--tags a,b --tags c`` as a, b, c."""
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def parse_tag(text: str) -> Tag:
    """A tag of the command line; one with arguments is never scoped (madengine's rule)."""
    word, *suffixes = [part.strip() for part in text.split(":") if part.strip()] or [""]
    if ":" in text:
        extra = "".join(f" --{suffix.replace('=', ' ')}" for suffix in suffixes)
        return Tag(text, word, extra=extra)
    if text.count("/") == 1:
        scope, inner = text.split("/")
        return Tag(text, inner, scope)
    return Tag(text, text)


def select(cards: Sequence[ModelCard], values: Iterable[str]) -> list[ModelCard]:
    """The cards that the tags choose; one chosen twice in just the same way runs once.

    Raises DiscoveryError for no tag at all and for a tag that chooses nothing.
    """
    tags = [parse_tag(word) for word in split_tags(values)]
    if not tags:
        raise DiscoveryError("cannot choose models: no tag is given; say --tags NAME, or --tags all")
    chosen: list[ModelCard] = []
    for tag in tags:
        taken = [replace(card, args=card.args + tag.extra) for card in cards if tag.takes(card)]
        if not taken:
            raise DiscoveryError(_nothing(tag, cards))
        chosen += taken
    unique: dict[tuple[str, str], ModelCard] = {}
    for card in chosen:
        unique.setdefault((card.name, card.args), card)
    return list(unique.values())


def _nothing(tag: Tag, cards: Sequence[ModelCard]) -> str:
    known = [card.name for card in cards] + [word for card in cards for word in card.tags]
    asked = tag.text.split(":")[0]
    near = did_you_mean(asked, known) or did_you_mean(tag.word, known)
    names = sorted({card.name for card in cards})
    listed = (
        "" if near or not names else f"; there is {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    )
    return f"cannot find a model for tag {asked!r} among {len(cards)} models{near}{listed}"
