"""Two tools around a script, planned, packed and run for real: what is printed is in the verified order."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from phalanx.controller.fleet.workspace import pack
from phalanx.controller.plan.model_steps import around_model
from phalanx.controller.plan.secrets import Secrets
from phalanx.controller.plan.tools import check_argv, stack, system_details, wrap
from phalanx.controller.workflow.bundled import FOLDER, bundled_folder
from phalanx.controller.workflow.card import read_cards
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.context_parts import Script
from phalanx.controller.workflow.models import locate
from phalanx.controller.workflow.scripts import find_scripts
from phalanx.controller.workflow.tools import find_system_details, load_tools

from .place import Place

pytestmark = pytest.mark.local


def test_tools_a_and_b_around_a_script(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "scripts" / "m").mkdir(parents=True)
    (project / "scripts" / "m" / "run.sh").write_text('echo "model $*"\n', encoding="utf-8")
    (project / FOLDER).mkdir()
    (project / FOLDER / "test_echo.sh").write_text('echo "own $*"\n', encoding="utf-8")
    (card,) = read_cards([{"name": "m", "scripts": "scripts/m"}], "models.json")
    context = load_context('{"tools": [{"name": "test_tools_A"}, {"name": "test_tools_B"}]}')
    path = f"{FOLDER}/pre_scripts/pre_test.sh"
    users = find_scripts(
        (Script(path), Script(path, "'two words'")), (project,), lambda number: f"ctx: pre_scripts[{number}]"
    )
    details = system_details(find_system_details(project), "m", "", "", ())
    found = stack(load_tools(context, project), users, users[:1]).then(details)
    common = str(project / FOLDER), str(bundled_folder())
    around = around_model(locate(project, card), found, common, Secrets(), "here")
    pack(around.shares, tmp_path / "workspace.tar")
    place = Place(tmp_path / "node")
    with tarfile.open(tmp_path / "workspace.tar") as tar:
        tar.extractall(place.root, filter="data")
    steps = [step.argv for step in around.before if step.name != "facts"]
    assert steps[0] == check_argv(found, "here")
    main = wrap(found, ("env",), ("bash", "run.sh", "a  b", "$HOME"))
    said = ""
    for argv in (*steps, main, *(step.argv for step in around.after)):
        done = place.run(*argv)
        assert (done.returncode, done.stderr) == (0, "")
        said += done.stdout
    assert said.splitlines() == [
        "Pre-Script test called test_tools_B",
        "Pre-Script test called test_tools_A",
        "Pre-Script test called 0",
        "Pre-Script test called two words",
        "rocenv: m_env.csv (lite)",
        "own test_tools_B",
        "own test_tools_A",
        "model a  b $HOME",
        "Pre-Script test called 0",
        "Post-Script test called test_tools_A",
        "Post-Script test called test_tools_B",
    ]
