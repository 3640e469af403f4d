"""One distribution out of four folders: the traps that break it silently, and what the wheel holds.

* Without ``dev-mode-dirs`` an editable install keeps one of the four roots.
* An ``__init__.py`` directly under any ``*/phalanx/`` hides the other three.
* mypy told ``packages = ["phalanx"]`` checks a part of the code and reports success.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("agent", "controller", "protocol", "templates")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room / "phalanx").rglob("*.py"))]


def test_an_editable_install_keeps_all_four_roots() -> None:
    assert sorted(PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]) == sorted(ROOMS)


def test_every_room_is_imported_from_its_own_folder() -> None:
    program = (
        "import importlib.util as u\n"
        f"print(*(u.find_spec('phalanx.' + room).origin for room in {ROOMS!r}), sep='\\n')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [str(ROOT / room / "phalanx" / room / "__init__.py") for room in ROOMS]


def test_nothing_lies_directly_under_phalanx_that_would_hide_the_other_rooms() -> None:
    for room in ROOMS:
        inside = {path.name for path in (ROOT / room / "phalanx").iterdir()} - {"__pycache__"}
        assert inside == {room}, f"{room}/phalanx must hold {room} and nothing else"


def test_every_folder_with_code_is_a_package_so_that_the_wheel_and_mypy_see_it() -> None:
    for path in sources():
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def test_mypy_is_told_files_not_packages_and_strict() -> None:
    mypy = PYPROJECT["tool"]["mypy"]
    assert "packages" not in mypy
    assert sorted(mypy["files"]) == sorted(f"{room}/phalanx" for room in ROOMS)
    assert sorted(mypy["mypy_path"]) == sorted(ROOMS)
    assert mypy["explicit_package_bases"] is True
    assert mypy["strict"] is True


def test_mypy_sees_a_type_error_in_every_room(tmp_path: Path) -> None:
    config = dict(PYPROJECT["tool"]["mypy"])
    wrong = []
    for room in ROOMS:
        module = tmp_path / room / "phalanx" / room / "wrong.py"
        module.parent.mkdir(parents=True)
        (module.parent / "__init__.py").touch()
        module.write_text('number: int = "text"\n', encoding="utf-8")
        wrong.append(str(module.relative_to(tmp_path)))
    lines = ["[tool.mypy]"]
    for key in ("files", "mypy_path", "explicit_package_bases", "namespace_packages", "strict"):
        value = config[key]
        lines.append(f"{key} = {str(value).lower() if isinstance(value, bool) else value}")
    (tmp_path / "pyproject.toml").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for path in wrong:
        assert f"{path}:1: error" in done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    where = tmp_path_factory.mktemp("wheel")
    program = (
        "import sys; from hatchling.builders.wheel import WheelBuilder\n"
        "print(*WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard']))"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(ROOT), str(where)], check=True, capture_output=True, text=True
    )
    (made,) = where.glob("phalanx_hpc-*.whl")
    return zipfile.ZipFile(made)


def test_the_wheel_holds_every_file_of_the_four_roots(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    for room in ROOMS:
        root = ROOT / room
        expected = {
            str(path.relative_to(root))
            for path in (root / "phalanx").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert expected - held == set()
        assert f"phalanx/{room}/py.typed" in held
    assert "phalanx/__init__.py" not in held


def test_the_wheel_has_the_licence_the_command_and_nothing_of_tests_or_docs(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    assert b"phalanx = phalanx.controller.cli" in wheel.read(entry)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"phalanx", next(top for top in tops if top.endswith(".dist-info"))}


VIOLATIONS = [
    ("agent", "from phalanx.controller import wrong_target", "never import each other"),
    ("controller", "from phalanx.agent import wrong_target", "never import each other"),
    ("protocol", "import phalanx.controller.wrong_target", "imports neither side"),
    ("protocol", "import phalanx.agent.wrong_target", "imports neither side"),
    *(
        ("protocol", f"import {module}", "does no IO")
        for module in ("asyncio", "socket", "time", "random", "logging", "os")
    ),
]


def lint_imports(where: Path) -> subprocess.CompletedProcess[str]:
    """import-linter, with the contracts of this project, over a tree that has the same four rooms."""
    paths = ", ".join(repr(str(where / room)) for room in ROOMS)
    program = (
        f"import sys; sys.path[:0] = [{paths}]; from importlinter.cli import lint_imports_command as c; c()"
    )
    return subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import site, sys; sys.path.extend({sys.path!r}); {program}",
            "--no-cache",
        ],
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
    )


def rooms_in(where: Path) -> Path:
    """Four small rooms under the contracts of this project."""
    (where / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for room in ROOMS:
        package = where / room / "phalanx" / room
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "wrong_target.py").touch()
    return where


def test_the_contracts_hold_for_rooms_that_keep_them(tmp_path: Path) -> None:
    done = lint_imports(rooms_in(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("room", "line", "contract"), VIOLATIONS, ids=lambda part: str(part)[:40])
def test_each_contract_really_fires(room: str, line: str, contract: str, tmp_path: Path) -> None:
    where = rooms_in(tmp_path)
    (where / room / "phalanx" / room / "wrong.py").write_text(f"{line}\n", encoding="utf-8")
    done = lint_imports(where)
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(contract in text for text in broken), done.stdout
