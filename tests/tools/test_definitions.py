"""Tools files: what is read, what goes over what, and the words for what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.plan.tools import system_details
from phalanx.controller.plan.words import split_words
from phalanx.controller.workflow.bundled import bundled_files
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.context_parts import Script
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.scripts import FoundScript, find_scripts
from phalanx.controller.workflow.tools import (
    FILE_LIMIT,
    MOST_TOOLS,
    TOOLS_FILE,
    ChosenTool,
    definitions,
    find_system_details,
    load_tools,
)


def project(root: Path, tools: dict[str, Any], name: str = TOOLS_FILE) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tools": tools}), encoding="utf-8")
    return root


def tools_of(root: Path, *entries: dict[str, Any], said: str = "") -> tuple[ChosenTool, ...]:
    return load_tools(load_context(json.dumps({"tools": list(entries)})), root, said)


def test_a_project_without_a_tools_file_has_ours(tmp_path: Path) -> None:
    (tool,) = tools_of(tmp_path, {"name": "rocprofv3"})
    assert tool.command.startswith("rocprofv3 ")
    assert tool.where == "phalanx's tools.json: tools.rocprofv3"


def test_the_projects_definition_of_a_name_replaces_ours_whole(tmp_path: Path) -> None:
    project(tmp_path, {"gpu_info_power_profiler": {"cmd": "mine --"}})
    (tool,) = tools_of(tmp_path, {"name": "gpu_info_power_profiler"})
    assert (tool.command, dict(tool.env), tool.needs, tool.leaves) == ("mine --", {}, None, ())
    assert tool.where == f"{TOOLS_FILE}: tools.gpu_info_power_profiler"
    assert tools_of(tmp_path, {"name": "rpd"})[0].needs == ("runTracer.sh", "python3")


def test_a_file_that_is_named_is_read_instead_of_the_projects(tmp_path: Path) -> None:
    project(tmp_path, {"a": {"cmd": "usual"}})
    project(tmp_path, {"b": {"cmd": "other"}}, "my/tools.json")
    assert tools_of(tmp_path, {"name": "b"}, said="my/tools.json")[0].command == "other"
    with pytest.raises(InputError, match="there is no tool 'a'"):
        tools_of(tmp_path, {"name": "a"}, said="my/tools.json")
    with pytest.raises(InputError, match=r"cannot read none\.json: No such file"):
        tools_of(tmp_path, said="none.json")


def test_every_part_of_a_definition_is_read(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("pre.sh", "more.sh", "post.sh"):
        (tmp_path / "s" / name).touch()
    project(
        tmp_path,
        {
            "t": {
                "_comment": "for people",
                "pre_scripts": [{"path": "s/pre.sh", "args": "a b"}, {"path": "s/more.sh"}],
                "cmd": " prof -- ",
                "env_vars": {"N": 3, "X": "y", "_JAVA_OPTIONS": "-Xmx1g"},
                "post_scripts": [{"path": "s/post.sh", "args": 7}],
                "needs": ["prof", "a|b"],
                "leaves": ["*.prof"],
                "about": "it profiles",
            }
        },
    )
    (tool,) = tools_of(tmp_path, {"name": "t"})
    where = f"{TOOLS_FILE}: tools.t"
    assert tool == ChosenTool(
        "t",
        where,
        "prof --",
        f"{where}.cmd",
        {
            "N": ("3", f"{where}.env_vars.N"),
            "X": ("y", f"{where}.env_vars.X"),
            "_JAVA_OPTIONS": ("-Xmx1g", f"{where}.env_vars._JAVA_OPTIONS"),
        },
        (
            FoundScript(f"{tmp_path}/s/pre.sh", "a b", f"{where}.pre_scripts[0]"),
            FoundScript(f"{tmp_path}/s/more.sh", "", f"{where}.pre_scripts[1]"),
        ),
        (FoundScript(f"{tmp_path}/s/post.sh", "7", f"{where}.post_scripts[0]"),),
        ("prof", "a|b"),
        ("*.prof",),
    )


def test_an_entry_of_the_context_goes_over_command_and_environment(tmp_path: Path) -> None:
    project(tmp_path, {"t": {"cmd": "old", "env_vars": {"A": "1", "B": "2"}, "needs": ["old"]}})
    (tool,) = tools_of(tmp_path, {"name": "t", "cmd": "new -x", "env_vars": {"B": 3, "C": "4"}})
    assert (tool.command, tool.command_origin) == ("new -x", "--additional-context: tools[0].cmd")
    assert tool.needs is None, "what the old command needs says nothing about the new one"
    assert dict(tool.env) == {
        "A": ("1", f"{TOOLS_FILE}: tools.t.env_vars.A"),
        "B": ("3", "--additional-context: tools[0].env_vars.B"),
        "C": ("4", "--additional-context: tools[0].env_vars.C"),
    }


def test_an_environment_may_be_given_to_a_tool_that_has_none(tmp_path: Path) -> None:
    project(tmp_path, {"t": {"cmd": "x"}})
    (tool,) = tools_of(tmp_path, {"name": "t", "env_vars": {"A": "1"}})
    assert dict(tool.env) == {"A": ("1", "--additional-context: tools[0].env_vars.A")}


def test_an_empty_command_takes_that_of_the_definition_away(tmp_path: Path) -> None:
    assert tools_of(tmp_path, {"name": "rpd", "cmd": ""})[0].command == ""


def test_one_runs_entries_never_reach_the_next(tmp_path: Path) -> None:
    before = definitions(tmp_path)
    tools_of(tmp_path, {"name": "gpu_info_power_profiler", "env_vars": {"POWER_DEVICE": "0"}})
    assert definitions(tmp_path) == before
    (again,) = tools_of(tmp_path, {"name": "gpu_info_power_profiler"})
    assert again.env["POWER_DEVICE"][0] == "all"


def test_a_run_without_tools_does_not_read_the_projects_file(tmp_path: Path) -> None:
    project(tmp_path, {"t": {"cdm": "x"}})
    assert load_tools(load_context(), tmp_path) == ()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "rocprofv"}], r"tools\[0\].name: there is no tool 'rocprofv'; did you mean 'rocprof"),
        ([{"name": "qqqq"}], "there is no tool 'qqqq'; the tools are gpu_info_power_profiler, "),
        ([{"name": "rpd"}, {"name": "rpd"}], r"tools\[1\].name: rpd is in the list already"),
        ([{"name": "rpd", "cmd": "a\nb"}], r"tools\[0\].cmd: expected one line"),
        ([{"name": "rpd"}] * (MOST_TOOLS + 1), "65 tools, 64 are the most"),
    ],
)
def test_what_the_context_cannot_ask_for_is_refused(
    entries: list[dict[str, Any]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        tools_of(tmp_path, *entries)


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"t": {"cdm": "x"}}, r"tools.t.cdm: it is not a known key; did you mean 'cmd'"),
        ({"t": {"pre_scripts": [{"pth": "a"}]}}, r"tools.t.pre_scripts\[0\].pth: it is not a known key; did"),
        ({"t": {"pre_scripts": [{}]}}, r"tools.t.pre_scripts\[0\].path: it is required and missing"),
        ({"t": {"cmd": ["a"]}}, "tools.t.cmd: expected text, found a list"),
        ({"t": {"cmd": "a\nb"}}, "tools.t.cmd: expected one line of at most 4096 characters"),
        ({"t": {"env_vars": {"A": ["x"]}}}, "tools.t.env_vars.A: expected text or a"),
        ({"t": {"needs": ["-rf /"]}}, r"tools.t.needs\[0\]: expected the name of a program"),
        ({"t": {"leaves": ["/etc/*"]}}, r"tools.t.leaves\[0\]: expected a pattern of paths below"),
        ({"t": {"leaves": ["../*"]}}, r"tools.t.leaves\[0\]: expected a pattern of paths below"),
        ({"a b": {}}, "expected a name of letters, digits"),
        ({"../x": {}}, "expected a name of letters, digits"),
        ({"t": "x"}, "tools.t: expected an object, found text 'x'"),
        ([], "tools: expected an object, found a list"),
    ],
)
def test_a_file_that_does_not_keep_to_the_form_is_refused_by_key(
    tools: Any, words: str, tmp_path: Path
) -> None:
    project(tmp_path, tools)
    with pytest.raises(InputError, match=rf"cannot read {TOOLS_FILE}: .*{words}"):
        tools_of(tmp_path, {"name": "rpd"})


def test_a_value_of_an_environment_is_not_shown_by_an_error(tmp_path: Path) -> None:
    project(tmp_path, {"t": {"env_vars": {"A": {"hunter2": 1}}}})
    with pytest.raises(InputError) as refused:
        tools_of(tmp_path, {"name": "rpd"})
    assert "hunter2" not in str(refused.value)


def test_a_key_in_the_wrong_place_is_told_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"cmd": "x", "tools": {}}', encoding="utf-8")
    with pytest.raises(InputError, match="cmd: it is not a key of the top level; it belongs to a tool"):
        tools_of(tmp_path, said="t.json")


def test_a_file_is_read_up_to_a_limit_and_as_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(" " * (FILE_LIMIT + 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"t.json: it is larger than 1 MiB"):
        tools_of(tmp_path, said="t.json")
    path.write_text('{"tools": {"a": {}, "a": {}}}', encoding="utf-8")
    with pytest.raises(InputError, match="the key 'a' is given twice"):
        tools_of(tmp_path, said="t.json")
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot read t\.json: the whole: expected an object"):
        tools_of(tmp_path, said="t.json")


def found(root: Path, path: str) -> str:
    (script,) = find_scripts((Script(path),), (root,), lambda number: f"ctx: pre_scripts[{number}]")
    return script.file


def test_the_projects_own_script_goes_before_ours(tmp_path: Path) -> None:
    path = "scripts/common/pre_scripts/pre_test.sh"
    assert found(tmp_path, path) == str(bundled_files()[path])
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("echo mine\n", encoding="utf-8")
    assert found(tmp_path, f"./{path}") == str(tmp_path / path)


def test_a_script_that_is_nowhere_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "setup.sh").touch()
    words = (
        r"ctx: pre_scripts\[0\].path: there is no file scripts/setpu.sh in .*did you mean 'scripts/setup.sh'"
    )
    with pytest.raises(InputError, match=words):
        found(tmp_path, "scripts/setpu.sh")
    with pytest.raises(InputError, match=r"did you mean 'scripts/common/test_echo\.sh'"):
        found(tmp_path, "scripts/common/testecho.sh")


def test_a_tool_whose_script_is_nowhere_is_refused_by_its_definition(tmp_path: Path) -> None:
    project(tmp_path, {"t": {"post_scripts": [{"path": "s/gone.sh"}]}, "u": {}})
    with pytest.raises(
        InputError, match=r"tools.json: tools.t.post_scripts\[0\].path: there is no file s/gone.sh"
    ):
        tools_of(tmp_path, {"name": "t"})
    assert tools_of(tmp_path, {"name": "u"})[0].name == "u"


@pytest.mark.parametrize(
    ("model", "name"),
    [("a/b c", "a_b_c_env"), ("../x", "_x_env"), ("$(id)", "__id__env"), ("--", "model_env"), ("é", "__env")],
)
def test_the_file_of_the_system_details_has_a_plain_name(model: str, name: str, tmp_path: Path) -> None:
    script = system_details(find_system_details(tmp_path), model, "", "", hidden=("B", "A"))
    assert split_words(script.args, "x") == [name, "lite", "", "A", "B"]
    assert script.file == str(bundled_files()["scripts/common/pre_scripts/run_rocenv_tool.sh"])
