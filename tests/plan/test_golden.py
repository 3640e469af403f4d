"""Every launcher on every target with 1, 2 and 4 nodes is what its golden file says."""

from __future__ import annotations

import re

import pytest

from . import golden


@pytest.mark.parametrize("name", golden.names())
def test_the_dry_run_is_the_recorded_one(name: str) -> None:
    assert golden.recorded(name) == golden.text_of(name), "look at: python -m tests.plan.golden"


def test_no_file_is_left_of_a_launcher_that_is_gone() -> None:
    assert golden.strangers() == []


@pytest.mark.parametrize("name", golden.names())
def test_no_name_of_a_template_is_left_to_be_seen(name: str) -> None:
    assert not re.search(r"\{[A-Z]", golden.text_of(name))


def test_a_changed_file_is_told_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert golden.main([]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "FOLDER", tmp_path)
        assert golden.main([]) == 1
        assert "torchrun-local-1" in capsys.readouterr().out
        assert golden.main(["--write"]) == 0
        assert golden.main([]) == 0
