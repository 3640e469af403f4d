"""Models that a project's program makes: what it may do, what it may not, and what is said when it fails."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from phalanx.controller.workflow import dynamic
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.models import chosen, discover

pytestmark = pytest.mark.local

SHOWN = "scripts/dyn/get_models_json.py"
IMPORT = "from madengine.utils.discover_models import CustomModel\n"
PLAIN = IMPORT + (
    "def list_models():\n"
    "    return [CustomModel(name='a', scripts='run.sh', dockerfile='../../docker/a', tags=['t']),\n"
    "            CustomModel(name='b', scripts='run.sh', tags=['t', 'u'])]\n"
)
#: What an update found out is seen in the arguments; which models were updated, in a file.
UPDATING = IMPORT + (
    "class Model(CustomModel):\n"
    "    def update_model(self):\n"
    "        open('updated', 'a').write(self.name + '\\n')\n"
    "        self.args += ' --found 1'\n"
    "        self.scripts = 'sub/run.sh'\n"
    "def list_models():\n"
    "    return [Model(name=name, scripts='run.sh', tags=['t', name], args='-v') for name in 'abc']\n"
)


def project(root: Path, program: str) -> Path:
    (root / "models.json").write_text("[]")
    (root / "scripts/dyn").mkdir(parents=True)
    (root / SHOWN).write_text(program)
    return root


def refusal(root: Path, program: str) -> str:
    with pytest.raises(InputError) as caught:
        discover(project(root, program))
    return str(caught.value)


def test_names_and_paths_get_the_folder_once_and_absent_fields_the_defaults_of_the_form(
    tmp_path: Path,
) -> None:
    first, second = discover(project(tmp_path, PLAIN))
    assert (first.name, first.scripts, first.dockerfile) == ("dyn/a", "scripts/dyn/run.sh", "docker/a")
    assert (second.name, second.dockerfile, second.index) == ("dyn/b", "", 1)
    assert (first.n_gpus, first.timeout, first.args, first.source) == ("-1", 7200, "", SHOWN)


def test_a_model_that_two_tags_choose_has_its_paths_prefixed_once(tmp_path: Path) -> None:
    found = chosen(project(tmp_path, PLAIN), ["t,dyn/u", "dyn/a", "dyn/b:fast"])
    assert [(one.name, one.scripts, one.args) for one in found.cards] == [
        ("dyn/a", "scripts/dyn/run.sh", ""),
        ("dyn/b", "scripts/dyn/run.sh", ""),
        ("dyn/b", "scripts/dyn/run.sh", " --fast"),
    ]
    assert found.notes == ("chosen by more than one tag: dyn/a (t, dyn/a), dyn/b (t, dyn/u); taken once",)


def test_only_what_is_chosen_is_updated_and_once_and_under_its_full_name(tmp_path: Path) -> None:
    root = project(tmp_path, UPDATING)
    assert [one.args for one in discover(root)] == ["-v", "-v", "-v"]
    assert not (root / "updated").exists()
    found = chosen(root, ["c,b:x=1", "dyn/c"])
    assert [(one.name, one.args, one.scripts, one.index) for one in found.cards] == [
        ("dyn/c", "-v --found 1", "scripts/dyn/sub/run.sh", 2),
        ("dyn/b", "-v --found 1 --x 1", "scripts/dyn/sub/run.sh", 1),
    ]
    assert (root / "updated").read_text().splitlines() == ["dyn/c", "dyn/b"]


def test_what_it_prints_is_no_answer_and_is_not_shown(tmp_path: Path) -> None:
    noise = "import os, sys\nprint('[]')\nos.write(1, b'{}')\nsys.stderr.write('x' * 200000)\n"
    assert len(discover(project(tmp_path, noise + PLAIN))) == 2


def test_it_runs_in_the_project_with_no_input_and_leaves_nothing_there(tmp_path: Path) -> None:
    look = (
        "import os, sys\n"
        "import beside\n"
        "assert sys.stdin.read() == ''\n"
        "assert os.path.exists('models.json')\n"
        "assert os.getsid(0) == os.getpid()\n"
    )
    root = project(tmp_path, look + PLAIN)
    (root / "scripts/dyn/beside.py").write_text("")
    (root / "json.py").write_text("raise SystemExit('a file of the project stood in for a module')\n")
    discover(root)
    assert not list(root.rglob("__pycache__"))


def test_more_fields_of_a_subclass_are_fields_of_the_card(tmp_path: Path) -> None:
    program = IMPORT + (
        "from dataclasses import dataclass, field\n"
        "@dataclass\n"
        "class Model(CustomModel):\n"
        "    distributed: dict = field(default_factory=lambda: {'launcher': 'torchrun'})\n"
        "    own: int = 3\n"
        "def list_models():\n"
        "    model = Model(name='a', scripts='run.sh')\n"
        "    model._private = object()\n"
        "    return [model]\n"
    )
    (card,) = discover(project(tmp_path, program))
    assert card.distributed == {"launcher": "torchrun"}
    assert card.unknown == ("own",)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("x = 1", "it has no function list_models()"),
        ("list_models = []", "it has no function list_models()"),
        ("def list_models(): return None", "list_models() gave None, expected a list of CustomModel"),
        ("def list_models(): return {}", "list_models() gave a dict, expected a list of CustomModel"),
        ("def list_models(): return [{}]", "list_models()[0] is a dict, expected a CustomModel"),
        (
            IMPORT + "def list_models(): return [CustomModel(name='a', tags={1})]",
            "tags of model 'a' cannot be written as JSON: Object of type set",
        ),
        (
            IMPORT + "def list_models(): return [CustomModel(name='a', data=float('nan'))]",
            "data of model 'a' cannot be written as JSON",
        ),
        (
            IMPORT + "def list_models(): return [CustomModel(name='a')] * 10001",
            "list_models() gave 10001 models, 10000 are the most",
        ),
        ("raise ValueError('boom')", "running it raised ValueError: boom"),
        ("import missing_thing", "running it raised ModuleNotFoundError: No module named 'missing_thing'"),
        ("import sys; sys.exit(3)", "running it raised SystemExit: 3"),
        ("def list_models(: pass", "running it raised SyntaxError"),
        ("import os; os._exit(7)", "it ended with status 7 and gave no answer"),
        ("import os; os.kill(os.getpid(), 9)", "it ended by signal 9 and gave no answer"),
        (IMPORT + "def list_models(): return [CustomModel()]", "required positional argument: 'name'"),
    ],
)
def test_what_is_wrong_with_it_is_told_with_its_place_and_the_next_step(
    tmp_path: Path, program: str, why: str
) -> None:
    said = refusal(tmp_path, program)
    assert said.startswith(f"cannot read {SHOWN}: ")
    assert why in said
    assert "; mend it, or write its models to scripts/dyn/models.json in its place" in said


def test_the_end_of_what_it_printed_is_shown_with_its_own_lines_and_none_of_ours(tmp_path: Path) -> None:
    program = "print('\\x1b[2Jlooking')\ndef list_models():\n    raise RuntimeError('no network')\n"
    said = refusal(tmp_path, program).splitlines()
    assert said[1:3] == ["what it printed last:", "  | looking"]
    assert said[-1] == "  | RuntimeError: no network"
    assert not any("model_program.py" in line for line in said)


def test_a_bad_field_is_told_as_in_any_list_of_models(tmp_path: Path) -> None:
    program = IMPORT + "def list_models(): return [CustomModel(name='a', scripts='s', args=3)]"
    assert "get_models_json.py: [0]: args: expected text, found the number 3" in refusal(tmp_path, program)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("self.name = 'other'", "update_model() of dyn/a changed its name to 'other'"),
        ("raise OSError('gone')", "update_model() raised OSError: gone"),
    ],
)
def test_an_update_that_fails_is_told(tmp_path: Path, body: str, why: str) -> None:
    program = IMPORT + (
        f"class Model(CustomModel):\n    def update_model(self):\n        {body}\n"
        "def list_models(): return [Model(name='a', scripts='run.sh')]\n"
    )
    root = project(tmp_path, program)
    assert len(discover(root)) == 1
    with pytest.raises(InputError) as caught:
        chosen(root, ["all"])
    assert why in str(caught.value)


def test_a_list_that_changes_between_two_calls_is_refused(tmp_path: Path) -> None:
    program = IMPORT + (
        "import os\n"
        "def list_models():\n"
        "    made = os.path.exists('seen')\n"
        "    open('seen', 'w').close()\n"
        "    return [CustomModel(name='new' if made else 'old', scripts='run.sh')]\n"
    )
    with pytest.raises(InputError, match=r"\[0\] is 'new' now and was 'old' a moment ago"):
        chosen(project(tmp_path, program), ["all"])


def test_one_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "print('waiting', flush=True)\n"
        "time.sleep(600)\n"
    )
    root = project(tmp_path, program)
    with pytest.raises(InputError, match=r"it did not end within 3 s.*(?s:.*)\| waiting"):
        dynamic.listed(root, SHOWN, deadline_s=3.0)
    for pid in map(int, (root / "pids").read_text().split()):
        assert gone(pid)


def test_what_it_leaves_behind_does_not_hold_up_the_answer_and_is_ended(tmp_path: Path) -> None:
    leave = (
        "import os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    time.sleep(600)\n"
        "open('pids', 'w').write(str(pid))\n"
    )
    root = project(tmp_path, leave + PLAIN)
    assert len(discover(root)) == 2
    assert gone(int((root / "pids").read_text()))


def test_an_answer_over_the_limit_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "FILE_LIMIT", 1024 * 1024)
    program = IMPORT + "def list_models(): return [CustomModel(name='a' * 3_000_000)]"
    assert "its answer is larger than 1 MiB" in refusal(tmp_path, program)


def gone(pid: int) -> bool:
    """Whether a process has ended within a while; one that nobody has reaped yet has."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        os.sched_yield()
    return False
