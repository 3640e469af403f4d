"""Rules of the house that no linter keeps: functions from a module to its offences, tried on planted ones."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.source import ROOMS, ROOT, Module, called, dotted, product, read

Rule = Callable[[Module], Iterator[str]]

SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
DUMPING_GROUNDS = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "managers", "mixins"}
#: Words in a name that make its bytes a proof or a secret: comparing them must take the same time always.
SECRET_WORDS = re.compile(r"(^|_)(mac|hmac|pin|secret|token|proof|fingerprint)s?$")
#: Tables of declarations, one noun after another, that a reader looks things up in.
DECLARATIONS = {"protocol/phalanx/protocol/messages.py", "controller/phalanx/controller/fleet/events.py"}
LONGEST = 500
TIMEOUTS = {"TimeoutError", "asyncio.TimeoutError", "socket.timeout"}
#: What shows that a handler tells its own deadline from the kernel's verdict.
LOOKED = re.compile(r"errno|\.expired\(\)")
NETWORK_CALLS = {
    *("open_connection", "open_unix_connection", "create_connection", "connect", "start_tls", "getaddrinfo"),
    *("read", "readline", "readexactly", "readuntil", "recv", "recv_into", "sendall", "drain", "wait_closed"),
    *("sock_connect", "sock_recv", "sock_sendall"),
}


def no_shell(module: Module) -> Iterator[str]:
    for node in module.walk(ast.Call):
        assert isinstance(node, ast.Call)
        shell = any(
            word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
            for word in node.keywords
        )
        if shell or called(node) in SHELLS or called(node).endswith("create_subprocess_shell"):
            yield f"{module.at(node)} runs a shell"


def no_print_outside_cli(module: Module) -> Iterator[str]:
    if "/cli/" in module.name:
        return
    for node in module.walk(ast.Call):
        assert isinstance(node, ast.Call)
        if called(node) == "print":
            yield f"{module.at(node)} prints; only cli/ does"


def every_task_has_an_owner(module: Module) -> Iterator[str]:
    """``asyncio.create_task`` as a statement drops the task: nobody waits for it, its error is never seen."""
    for node in module.walk(ast.Expr):
        assert isinstance(node, ast.Expr)
        if not isinstance(node.value, ast.Call):
            continue
        name = called(node.value)
        owner = name.rpartition(".")[0]
        if name.endswith("ensure_future") or (
            name.endswith("create_task")
            and owner.split(".")[-1] in ("", "asyncio", "loop", "get_running_loop")
        ):
            yield f"{module.at(node)} starts a task that nobody owns"


def proofs_are_compared_in_constant_time(module: Module) -> Iterator[str]:
    for node in module.walk(ast.Compare):
        assert isinstance(node, ast.Compare)
        if not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        sides = [node.left, node.comparators[0]]
        if any(isinstance(side, ast.Constant) for side in sides):
            continue
        if any(SECRET_WORDS.search(dotted(side).rpartition(".")[2].lower()) for side in sides):
            yield f"{module.at(node)} compares a proof with ==; use hmac.compare_digest"


def no_dumping_ground(module: Module) -> Iterator[str]:
    words = {*module.path.stem.strip("_").split("_"), *module.path.parts}
    for word in words & DUMPING_GROUNDS:
        yield f"{module.name}: {word!r} names no noun of this product"


def timeouts_of_the_kernel_are_told_from_ours(module: Module) -> Iterator[str]:
    """The kernel's ETIMEDOUT is the same class as a deadline of ours; who talks to a network must look."""
    for node in module.walk(ast.Try):
        assert isinstance(node, ast.Try)
        inside = [call for line in node.body for call in ast.walk(line) if isinstance(call, ast.Call)]
        if not any(called(call).rpartition(".")[2] in NETWORK_CALLS for call in inside):
            continue
        for handler in node.handlers:
            caught = {dotted(part) for part in getattr(handler.type, "elts", [handler.type]) if part}
            said = module.source(handler)
            if caught & TIMEOUTS and "OSError" not in caught and not LOOKED.search(said):
                yield f"{module.at(handler)} catches TimeoutError without looking at errno or its deadline"


def broad_handlers_say_who_is_protected(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), start=1):
        match = re.search(r"#\s*noqa:\s*BLE001(.*)", line)
        if match and len(match.group(1).split()) < 3:
            yield f"{module.name}:{number} catches everything and does not say why"


def modules_are_short(module: Module) -> Iterator[str]:
    length = module.text.count("\n")
    if length > LONGEST and module.name not in DECLARATIONS:
        yield f"{module.name} has {length} lines; {LONGEST} are the ceiling"


def modules_say_why_they_exist(module: Module) -> Iterator[str]:
    if module.tree.body and not ast.get_docstring(module.tree):
        yield f"{module.name} does not open with why it exists"


def imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def the_agent_starts_from_the_standard_library(module: Module) -> Iterator[str]:
    """It runs as one file on nodes that have nothing: what is heavy is imported where it is used."""
    room = module.name.split("/")[0]
    if room not in ("agent", "protocol"):
        return
    at_import = module.tree.body if room == "agent" else list(ast.walk(module.tree))
    for node in at_import:
        for name in imports(node):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names | {"msgpack", "phalanx"}:
                yield f"{module.at(node)} imports {top}, which a node does not have"


RULES: dict[str, tuple[Rule, str]] = {
    "nothing runs a shell": (no_shell, "import subprocess\nsubprocess.run('ls', shell=True)\n"),
    "nothing runs a shell by another name": (no_shell, "import os\nos.system('ls')\n"),
    "nothing runs a shell in asyncio": (
        no_shell,
        "import asyncio\nx = asyncio.create_subprocess_shell('ls')\n",
    ),
    "only cli prints": (no_print_outside_cli, "print('hello')\n"),
    "every task has an owner": (every_task_has_an_owner, "import asyncio\nasyncio.create_task(x())\n"),
    "no future is dropped": (every_task_has_an_owner, "import asyncio\nasyncio.ensure_future(x())\n"),
    "proofs are compared in constant time": (
        proofs_are_compared_in_constant_time,
        "ok = hello.mac == expected\n",
    ),
    "fingerprints are compared in constant time": (
        proofs_are_compared_in_constant_time,
        "ok = found != self.pin\n",
    ),
    "no module is a dumping ground": (no_dumping_ground, ""),
    "timeouts of the kernel are told from ours": (
        timeouts_of_the_kernel_are_told_from_ours,
        "try:\n    link.recv(1)\nexcept TimeoutError:\n    pass\n",
    ),
    "broad handlers say who is protected": (
        broad_handlers_say_who_is_protected,
        "try:\n    pass\nexcept Exception:  # noqa: BLE001\n    pass\n",
    ),
    "modules are short": (modules_are_short, "x = 1\n" * (LONGEST + 1)),
    "modules say why they exist": (modules_say_why_they_exist, "x = 1\n"),
    "the agent starts from the standard library": (
        the_agent_starts_from_the_standard_library,
        "import aiohttp\n",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_the_product_keeps_the_rule(name: str) -> None:
    rule, _ = RULES[name]
    assert [offence for module in product() for offence in rule(module)] == []


@pytest.mark.parametrize("name", RULES)
def test_the_rule_sees_a_planted_offence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, offence = RULES[name]
    monkeypatch.setattr("tests.source.ROOT", tmp_path)
    planted = tmp_path / "agent" / "phalanx" / "agent" / "image_utils.py"
    planted.parent.mkdir(parents=True)
    planted.write_text(offence, encoding="utf-8")
    assert len(list(rule(read(planted)))) == 1


def test_the_rules_look_at_every_room() -> None:
    assert {module.name.split("/")[0] for module in product() if module.tree.body} >= set(ROOMS) - {
        "templates"
    }


def test_every_dependency_says_why_it_is_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.split(r"[<>=!~\[ ;]", line)[0] for line in wanted}
    table = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    said = {match.group(1) for match in re.finditer(r"^\| `([^`]+)` \|", table, re.MULTILINE)}
    assert said == names, "docs/dependencies.md has a line for each dependency, and for nothing else"


@pytest.mark.parametrize("folder", ["agent", "controller", "protocol", "templates", "tests", "systemd"])
def test_every_folder_of_the_house_says_what_lives_there(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert 8 <= text.count("\n") <= 80
    assert "never" in text.lower(), "it says what the folder must never do"
