"""Tags: how models are chosen on the command line.

``T`` takes models with that name or tag, ``all`` takes all; ``S/T`` looks among the models of ``scripts/S/``
only; ``T:k=v:flag`` appends ``--k v --flag`` to the arguments of what it takes. Models come in the order of
the tags, then of the files. A model that several tags take in just the same way is taken once, and that is
told; so are two models of one name, which every tag that takes one may take both of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..listing import listed
from .card import ModelCard
from .errors import DiscoveryError, did_you_mean

ALL = "all"
#: Most names or places that one line lists.
SHOWN = 8


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


@dataclass(frozen=True, slots=True)
class Choice:
    """A card that was chosen, and what the tag appends to its arguments."""

    card: ModelCard
    extra: str = ""

    def finished(self) -> ModelCard:
        """The card as it is to run."""
        return replace(self.card, args=self.card.args + self.extra) if self.extra else self.card


@dataclass(frozen=True, slots=True)
class Selection:
    """What tags chose. ``notes``: what the user may not have meant, a line each."""

    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()


def choose(cards: Sequence[ModelCard], values: Iterable[str]) -> Selection:
    """What the tags choose; a model chosen twice in just the same way once.

    Raises DiscoveryError for no tag at all and for a tag that chooses nothing.
    """
    words = split_tags(values)
    if not words:
        raise DiscoveryError("cannot choose models: no tag is given; say --tags NAME, or --tags all")
    notes: list[str] = []
    choices: dict[tuple[str, int, str], Choice] = {}
    takers: dict[tuple[str, int, str], list[str]] = {}
    for word in words:
        tag, taken, note = _taken(cards, word)
        notes += note
        for card in taken:
            key = (card.source, card.index, tag.extra)
            choices.setdefault(key, Choice(card, tag.extra))
            takers.setdefault(key, []).append(word)
    repeated = [(choices[key].card.name, words) for key, words in takers.items() if len(words) > 1]
    chosen = {(choice.card.source, choice.card.index): choice.card for choice in choices.values()}
    return Selection(
        tuple(choices.values()), (*notes, *_of_repeated(repeated), *same_names(list(chosen.values())))
    )


def same_names(cards: Iterable[ModelCard]) -> list[str]:
    """A line for each name that more than one card has, with the places of all of them."""
    by_name: dict[str, list[ModelCard]] = {}
    for card in cards:
        by_name.setdefault(card.name, []).append(card)
    return [
        f"{len(twins)} models have the name {name}: {listed([one.place for one in twins], SHOWN)}; "
        "a tag that takes one may take all"
        for name, twins in by_name.items()
        if len(twins) > 1
    ]


def _taken(cards: Sequence[ModelCard], word: str) -> tuple[Tag, list[ModelCard], list[str]]:
    """The tag that a word is, what it takes, and a note when it had to be read in the second way."""
    tag = parse_tag(word)
    taken = [card for card in cards if tag.takes(card)]
    if taken:
        return tag, taken, []
    if other := _second_spelling(word):
        tag_again = parse_tag(other)
        taken = [card for card in cards if tag_again.takes(card)]
        if taken:
            return tag_again, taken, [f"tag {word!r} takes nothing and was read as {other!r}"]
    raise DiscoveryError(_nothing(tag, cards))


def _second_spelling(word: str) -> str:
    """``dir:model:arg``, as some of madengine's pages have it, in the form that its code takes; else ""."""
    folder, colon, rest = word.partition(":")
    model = rest.split(":")[0]
    return f"{folder}/{rest}" if colon and "/" not in folder and model and "=" not in model else ""


def _of_repeated(repeated: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    if not repeated:
        return []
    shown = listed([f"{name} ({', '.join(words)})" for name, words in repeated], SHOWN)
    return [f"chosen by more than one tag: {shown}; taken once"]


def _nothing(tag: Tag, cards: Sequence[ModelCard]) -> str:
    known = [card.name for card in cards] + [word for card in cards for word in card.tags]
    asked = tag.text.split(":")[0]
    near = did_you_mean(asked, known) or did_you_mean(tag.word, known)
    names = sorted({card.name for card in cards})
    listed = (
        "" if near or not names else f"; there is {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    )
    return f"cannot find a model for tag {asked!r} among {len(cards)} models{near}{listed}"
