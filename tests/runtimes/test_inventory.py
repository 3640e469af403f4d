"""Which images an engine has, from what it lists."""

from __future__ import annotations

from phalanx.agent.runtimes.inventory import named
from phalanx.protocol.messages import EngineImage


def test_an_image_has_an_entry_for_each_of_its_names_and_those_without_one_stand_last() -> None:
    listed = [
        {"Id": "sha256:3", "RepoTags": None, "Size": 3},
        {"Id": "sha256:2", "RepoTags": ["<none>:<none>"], "Size": 2},
        {"Id": "sha256:1", "RepoTags": ["b:1", "a:1"], "Size": 1},
        {"Id": "sha256:4", "RepoTags": ["c:" + "x" * 400], "Size": -1},
    ]
    assert named(listed, {}) == [
        EngineImage("a:1", "sha256:1", 1),
        EngineImage("b:1", "sha256:1", 1),
        EngineImage("c:" + "x" * 254, "sha256:4", 0),
        EngineImage("", "sha256:2", 2),
        EngineImage("", "sha256:3", 3),
    ]
