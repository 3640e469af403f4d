"""A full disk: said once, logs stay where they are, and go on when there is room."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from phalanx.controller.logs.paths import StreamName
from phalanx.controller.logs.pausing import Pausing
from phalanx.controller.logs.store import LogStore

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phalanx.controller.logs.pausing.LOOK_S", 0.001)


class Story:
    """A store that is told to pause, and what people and agents are told."""

    def __init__(self, folder: Path) -> None:
        self.room = False
        self.looked = 0
        self.said: list[str] = []
        self.again: list[str] = []
        self.enough = asyncio.Event()
        self.pausing = Pausing(self._has_room, lambda node, words: self.said.append(words), self._again)
        self.store = LogStore(
            folder,
            single_case=True,
            ack=lambda *told: None,
            ended=lambda stream: None,
            paused=self.pausing.on_pause,
        )
        for rank in range(3):
            self.store.open(StreamName(f"n{rank}", "case", "main", rank, "out"))

    def _has_room(self) -> bool:
        self.looked += 1
        self.room = self.looked >= 3
        return self.room

    def _again(self, node: str, reason: str) -> None:
        self.again.append(node)
        if len(self.again) == 3:
            self.enough.set()


async def test_trouble_is_said_once_and_every_node_sends_again_when_there_is_room(tmp_path: Path) -> None:
    story = Story(tmp_path)
    looking = asyncio.create_task(story.pausing.keep_looking(story.store))
    story.store.pause_all(FULL)
    async with asyncio.timeout(10):
        await story.enough.wait()
    await asyncio.sleep(0)
    looking.cancel()
    assert story.looked == 3
    assert story.again == ["n0", "n1", "n2"]
    assert len(story.said) == 2
    assert "No space left on device; logs stay on their nodes until there is room" in story.said[0]
    assert story.said[1].endswith("nothing of them was lost")


async def test_what_fails_again_at_once_is_no_news_and_is_tried_less_often(tmp_path: Path) -> None:
    story = Story(tmp_path)
    looking = asyncio.create_task(story.pausing.keep_looking(story.store))
    story.store.pause_all(FULL)
    async with asyncio.timeout(10):
        await story.enough.wait()
    said = len(story.said)
    story.enough.clear()
    story.again.clear()
    story.store.pause_all(FULL)
    async with asyncio.timeout(10):
        await story.enough.wait()
    looking.cancel()
    assert len(story.said) == said
