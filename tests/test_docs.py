"""Pages that say the same as the code: what is generated is current, what is written by hand agrees."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

import pytest
from phalanx.controller.cli.main import VERBS
from phalanx.controller.exits import MEANINGS
from phalanx.controller.plan.model import Timing
from phalanx.protocol.release import VERSION

from tests.source import ROOT

PAGES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")])
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_generated_pages_are_current() -> None:
    argv = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(there), f"no heading for {target}"


def test_the_readme_names_every_verb_and_no_other() -> None:
    section = README.split("## Verbs")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    said = {re.split(r"[ \[]", words)[0] for row in rows for words in re.findall(r"`([^`]+)`", row)}
    assert said == set(VERBS)


def test_the_readme_chooses_only_models_of_the_example_that_it_goes_to() -> None:
    begin = README.split("cd examples/mad-mini")[1].split("\n## ")[0]
    cards = json.loads((ROOT / "examples" / "mad-mini" / "models.json").read_text(encoding="utf-8"))
    known = {word for card in cards for word in (card["name"], *card["tags"])}
    named = re.findall(r"phalanx (?:discover|build|run) .*?--tags (\S+)", begin)
    assert named and set(named) <= known


def test_the_readme_gives_exit_codes_only_as_the_code_does() -> None:
    section = README.split("## Exit codes")[1].split("\n## ")[0]
    first_cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| "))
    said = {int(number) for number in re.findall(r"\b\d+\b", first_cells.replace("128+n", ""))}
    assert said <= {int(code) for code in MEANINGS}
    assert {0, 1, 3, 4, 8, 9, 10, 75, 124, 130} <= said


def test_every_deadline_of_a_run_is_argued_with_its_default() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+_s)` \| ([\d.]+)", text, re.MULTILINE))
    assert {name: float(value) for name, value in rows.items()} == {
        field.name: field.default for field in dataclasses.fields(Timing)
    }


def test_the_readme_says_what_is_out_of_scope() -> None:
    security = " ".join(README.split("## Security")[1].split("\n## ")[0].split())
    for word in ("root", "same uid", "`docker` group", "munge"):
        assert word in security.split("Out of scope")[1]


def test_the_changelog_has_the_version_that_is_built() -> None:
    assert installed("phalanx-hpc") == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
