"""Discovery of models: files, scopes, tags, scripts, and the words for what is wrong."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.workflow.card import read_cards
from phalanx.controller.workflow.errors import DiscoveryError, InputError
from phalanx.controller.workflow.models import chosen, discover, selected
from phalanx.controller.workflow.place import FILE_LIMIT
from phalanx.controller.workflow.tags import same_names


def project(root: Path, models: Any, scoped: dict[str, Any] | None = None) -> Path:
    """A project on disk with these cards and a run.sh for each script folder."""
    (root / "models.json").write_text(models if isinstance(models, str) else json.dumps(models))
    for scope, cards in (scoped or {}).items():
        (root / "scripts" / scope).mkdir(parents=True)
        (root / "scripts" / scope / "models.json").write_text(json.dumps(cards))
    for folder in ("scripts/a", "scripts/dummy3"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "run.sh").write_text("echo\n")
    return root


def card(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "scripts": "scripts/a/run.sh", "args": "", **more}


def names(root: Path, *tags: str) -> list[str]:
    return [model.card.name for model in selected(root, list(tags))]


def test_models_come_in_the_order_of_the_tags_then_of_the_files(tmp_path: Path) -> None:
    root = project(tmp_path, [card("one", tags=["x"]), card("two", tags="x, y"), card("three", tags=["z"])])
    assert names(root, "z,x") == ["three", "one", "two"]
    assert names(root, "z", "y") == ["three", "two"]
    assert names(root, "all") == ["one", "two", "three"]


def test_a_model_chosen_twice_runs_once_unless_its_arguments_differ(tmp_path: Path) -> None:
    root = project(tmp_path, [card("one", tags=["x", "y"], args="-v")])
    assert names(root, "x,y,one") == ["one"]
    args = [model.card.args for model in selected(root, ["one", "x:batch-size=512:in=32:fast"])]
    assert args == ["-v", "-v --batch-size 512 --in 32 --fast"]


def test_a_scoped_file_gives_its_folder_to_names_and_paths_but_not_to_tags(tmp_path: Path) -> None:
    scoped = {"dummy3": [{"name": "m4", "scripts": "run.sh", "dockerfile": "../../docker/d", "tags": ["t"]}]}
    root = project(tmp_path, [card("one", tags=["t"])], scoped)
    found = {one.name: one for one in discover(root)}
    assert found["dummy3/m4"].dockerfile == "docker/d"
    assert found["dummy3/m4"].scripts == "scripts/dummy3/run.sh"
    assert names(root, "t") == ["one", "dummy3/m4"]
    assert names(root, "dummy3/t") == names(root, "dummy3/all") == names(root, "dummy3/m4") == ["dummy3/m4"]
    assert selected(root, ["dummy3/m4:in=1"])[0].card.args == " --in 1"


def test_a_tag_with_arguments_is_never_scoped(tmp_path: Path) -> None:
    root = project(tmp_path, [], {"dummy3": [{"name": "m", "scripts": "run.sh", "tags": ["t"]}]})
    with pytest.raises(DiscoveryError, match="tag 'dummy3/t'"):
        selected(root, ["dummy3/t:in=1"])


def test_an_unknown_tag_is_answered_with_the_nearest_spelling(tmp_path: Path) -> None:
    root = project(tmp_path, [card("ring_allreduce"), card("hello")])
    with pytest.raises(DiscoveryError, match=r"tag 'ring_alreduce' among 2 models; did you mean 'ring_all"):
        selected(root, ["ring_alreduce"])
    with pytest.raises(DiscoveryError, match=r"there is hello, ring_allreduce"):
        selected(root, ["zzz"])
    with pytest.raises(DiscoveryError, match="no tag is given"):
        selected(root, [" , "])


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (
            '[{"name": "a", "scripts": "s", "args": ["x"]}]',
            r"models.json: \[0\]: args: expected text, found a list",
        ),
        ('[{"scripts": "s"}]', r"models.json: \[0\]: name: it is required and missing"),
        ('[{"name": "a", "scripts": "s", "tags": 3}]', r"tags: expected text or a list, found the number 3"),
        ('[{"name": "a", "scripts": "s", "timeout": "soon"}]', r"timeout: expected a whole number"),
        ('{"name": "a"}', r"expected a list of models, found an object"),
        ('["a"]', r"\[0\]: expected an object, found text 'a'"),
        ('[{"name": "a", "name": "b"}]', r"the key 'name' is given twice"),
        ("[{]", r"line 1 column 3"),
        ("[NaN]", r"NaN is not a JSON number"),
        ("[" * 100_000, r"nested too deeply"),
        (
            '[{"name": "a", "scripts": "s", "nnodes": "many"}]',
            r"nnodes: expected a number of nodes, found 'many'",
        ),
    ],
)
def test_a_bad_models_file_names_entry_field_and_what_was_expected(
    tmp_path: Path, models: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        discover(project(tmp_path, models))


def test_a_field_of_another_tool_is_kept_and_named_in_a_warning() -> None:
    [found] = read_cards([card("a", mutiple_results="x.csv", _note="hi", deprecated=True)], "models.json")
    assert found.raw["mutiple_results"] == "x.csv"
    assert found.warnings() == [
        "models.json: [0] (a): mutiple_results is not a known field and is not used; "
        "did you mean 'multiple_results'?"
    ]


@pytest.mark.parametrize("scripts", ["../outside/run.sh", "/etc/run.sh", "scripts/../../x"])
def test_scripts_outside_the_project_are_refused(tmp_path: Path, scripts: str) -> None:
    with pytest.raises(InputError, match="leaves the project's folder"):
        selected(project(tmp_path, [card("a", scripts=scripts)]), ["a"])


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(a\): scripts: there is no file scripts/b/run.sh"):
        selected(project(tmp_path, [card("a", scripts="scripts/b")]), ["a"])


def test_a_script_may_be_a_shell_file_a_python_file_or_a_folder(tmp_path: Path) -> None:
    root = project(
        tmp_path, [card("sh"), card("py", scripts="scripts/a/x.py"), card("dir", scripts="scripts/a")]
    )
    (root / "scripts/a/x.py").write_text("")
    programs = {model.card.name: model.program for model in selected(root, ["all"])}
    assert programs == {"sh": ("bash", "run.sh"), "py": ("python3", "x.py"), "dir": ("bash", "run.sh")}
    assert {model.directory for model in selected(root, ["all"])} == {str(root / "scripts/a")}


def test_a_folder_that_lists_models_and_makes_them_is_refused(tmp_path: Path) -> None:
    root = project(tmp_path, [])
    (root / "scripts/a/get_models_json.py").write_text("")
    (root / "scripts/a/models.json").write_text("[]")
    with pytest.raises(InputError, match=r"scripts/a/models.json: get_models_json.py beside it .*keep one"):
        discover(root)


def test_a_model_that_two_tags_choose_is_named_with_them(tmp_path: Path) -> None:
    root = project(tmp_path, [card("one", tags=["x", "y"]), card("two", tags=["y"])])
    assert chosen(root, ["x,y"]).notes == ("chosen by more than one tag: one (x, y); taken once",)
    assert chosen(root, ["all", "y"]).notes == (
        "chosen by more than one tag: one (all, y), two (all, y); taken once",
    )
    assert chosen(root, ["x"]).notes == chosen(root, ["x,two"]).notes == ()
    assert chosen(root, ["one,one:fast"]).notes == (), "other arguments are another model"


def test_many_models_chosen_twice_are_counted(tmp_path: Path) -> None:
    root = project(tmp_path, [card(f"m{number}") for number in range(20)])
    (note,) = chosen(root, ["all,all"]).notes
    assert note.endswith("m7 (all, all) and 12 more; taken once")


def test_two_models_of_one_name_are_both_kept_and_named_with_their_places(tmp_path: Path) -> None:
    scoped = {"dir": [{"name": "m", "scripts": "run.sh"}]}
    root = project(tmp_path, [card("one"), card("dir/m"), card("one", args="-v")], scoped)
    assert same_names(discover(root)) == [
        "2 models have the name one: models.json: [0], models.json: [2]; a tag that takes one may take all",
        "2 models have the name dir/m: models.json: [1], scripts/dir/models.json: [0]; "
        "a tag that takes one may take all",
    ]
    found = chosen(root, ["one"])
    assert [one.args for one in found.cards] == ["", "-v"]
    assert len(found.notes) == 1


@pytest.mark.parametrize(
    ("tag", "args"), [("dummy3:m4", ""), ("dummy3:m4:in=1:fast", " --in 1 --fast"), ("dummy3:t", None)]
)
def test_a_scope_may_be_divided_by_a_colon_when_that_takes_nothing_else(
    tmp_path: Path, tag: str, args: str | None
) -> None:
    root = project(tmp_path, [], {"dummy3": [{"name": "m4", "scripts": "run.sh", "tags": ["t"]}]})
    found = chosen(root, [tag])
    assert [(one.name, one.args) for one in found.cards] == [("dummy3/m4", args or "")]
    assert found.notes == (f"tag {tag!r} takes nothing and was read as {tag.replace(':', '/', 1)!r}",)


def test_a_colon_after_a_name_is_never_a_scope(tmp_path: Path) -> None:
    scoped = {"one": [{"name": "fast", "scripts": "run.sh"}]}
    root = project(tmp_path, [card("one")], scoped)
    assert [(one.name, one.args) for one in chosen(root, ["one:fast"]).cards] == [("one", " --fast")]
    with pytest.raises(DiscoveryError, match="tag 'two'"):
        chosen(root, ["two:in=1"])


def test_a_folder_without_models_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError, match="go to a project's folder or set MODEL_DIR"):
        discover(tmp_path)


def test_a_folder_that_nobody_lets_us_read_is_named_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path, [card("one")], {"dummy3": [{"name": "m", "scripts": "run.sh"}]})
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if "dummy3" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(InputError, match=r"cannot read .*scripts/dummy3/models.json: Permission denied"):
        discover(root)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "models.json").open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        discover(tmp_path)
