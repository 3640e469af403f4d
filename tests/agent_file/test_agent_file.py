"""The agent as one file: built twice the same, started by whatever Python a node has, and by none in vain."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from phalanx.controller.targets import bundle
from phalanx.controller.targets.agent_file import AgentFile, agent_file, agent_sources, shell_prefix
from phalanx.controller.targets.bundle import CacheError, byte_code, cache_directory, zip_bytes

OLD = """#!/bin/sh
echo 3.9.18
exit 1
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> AgentFile:
    return agent_file(tmp_path_factory.mktemp("cache"))


def start(
    agent: AgentFile, *arguments: str, path: str = "/usr/bin:/bin", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the file as srun does: by its path alone."""
    return subprocess.run(
        [agent.path, *arguments],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def programs(directory: Path, **scripts: str) -> Path:
    """A directory with these programs; "=" for the Python that runs this test."""
    directory.mkdir(parents=True)
    for name, script in scripts.items():
        path = directory / name.replace("_", ".").replace("platform.", "platform-")
        if script == "=":
            path.symlink_to(sys.executable)
        else:
            path.write_text(script)
            path.chmod(0o755)
    return directory


def bare(tmp_path: Path, agent: AgentFile) -> AgentFile:
    """The same file, looking for Pythons on the PATH alone and not in this machine's own directories."""
    path = tmp_path / "bare.pyz"
    path.write_bytes(
        agent.path.read_bytes().replace(b"/usr/local/bin /usr/bin /bin /usr/libexec", b"/nowhere")
    )
    path.chmod(0o700)
    (tmp_path / "sh").mkdir()
    (tmp_path / "sh" / "uname").symlink_to(shutil.which("uname") or "/bin/uname")
    return AgentFile(path, agent.sha256, agent.size)


def test_the_file_says_its_version_when_executed(agent: AgentFile) -> None:
    done = start(agent, "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("phalanx-agent 0.")
    assert "protocol 1" in done.stdout


def test_digest_and_size_are_those_of_the_file_and_it_is_the_users_alone(agent: AgentFile) -> None:
    data = agent.path.read_bytes()
    assert agent.sha256 == hashlib.sha256(data).hexdigest()
    assert agent.size == len(data)
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o700


def test_two_processes_build_the_same_bytes(agent: AgentFile, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from phalanx.controller.targets.agent_file import agent_file;"
        "print(agent_file(Path(sys.argv[1])).sha256)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    if agent_file(tmp_path / "1").path.name == agent.path.name:  # unless the sources changed meanwhile
        assert digests == {agent.sha256}


def test_a_built_file_is_taken_from_the_cache(agent: AgentFile, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = agent_sources()
    monkeypatch.setattr("phalanx.controller.targets.agent_file.agent_sources", lambda: sources)
    first = agent_file(agent.path.parent)
    monkeypatch.setattr("phalanx.controller.targets.agent_file.zip_bytes", None)
    assert agent_file(agent.path.parent) == first


def test_all_of_agent_and_protocol_can_be_imported_from_the_file_without_site(agent: AgentFile) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import msgpack, phalanx.protocol.frames, "
        "phalanx.agent.library, phalanx.agent.workload, phalanx.agent.facts.gather; "
        "assert msgpack.Packer.__module__ == 'msgpack.fallback', msgpack.Packer; "
        "assert all(sys.argv[1] in module.__file__ for name, module in sys.modules.items() "
        "if name.split('.')[0] in ('phalanx', 'msgpack') and getattr(module, '__file__', None)); "
        "print(msgpack.unpackb(msgpack.packb({'a': [1, b'2']})))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(agent.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{'a': [1, b'2']}\n", done.stderr


def test_planted_modules_are_not_imported(agent: AgentFile, tmp_path: Path) -> None:
    for name in ("msgpack.py", "usercustomize.py", "sitecustomize.py", "stat.py", "phalanx.py"):
        (tmp_path / name).write_text("raise SystemExit('planted')\n")
    done = subprocess.run(
        [agent.path, "--version"],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(tmp_path),
            "PYTHONSTARTUP": str(tmp_path / "stat.py"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_that_others_can_write_is_not_run(agent: AgentFile, tmp_path: Path) -> None:
    open_to_all = tmp_path / "agent.pyz"
    shutil.copy(agent.path, open_to_all)
    open_to_all.chmod(0o770)
    done = start(AgentFile(open_to_all, "", 0), "--version")
    assert done.returncode == 64
    assert "can be written by others; run `chmod go-w" in done.stderr


def test_arguments_reach_the_agent_unchanged(agent: AgentFile, tmp_path: Path) -> None:
    echo = programs(tmp_path / "bin", python3_12='#!/bin/sh\nfor a in "$@"; do echo "<$a>"; done\n')
    file = bare(tmp_path, agent)
    done = start(file, "run", "a b", "", "*", path=f"{echo}:{tmp_path / 'sh'}")
    assert done.stdout.splitlines() == ["<-I>", "<-S>", f"<{file.path}>", "<run>", "<a b>", "<>", "<*>"]


def test_a_chosen_python_is_used_and_no_other(agent: AgentFile, tmp_path: Path) -> None:
    chosen = programs(tmp_path / "bin", mine="#!/bin/sh\necho chosen $4\n") / "mine"
    done = start(agent, "--python", str(chosen), "run")
    assert done.stdout == "chosen run\n"


@pytest.mark.parametrize(
    ("choice", "words"),
    [("python3", "wants an absolute path"), ("/no/python3", "there is no executable /no/python3 here")],
)
def test_a_chosen_python_that_is_not_there_is_named(agent: AgentFile, choice: str, words: str) -> None:
    done = start(agent, "--python", choice, "run")
    assert done.returncode == 127
    assert done.stderr.startswith("phalanx-agent: cannot start on ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_real_interpreter_goes_before_a_shim(agent: AgentFile, tmp_path: Path) -> None:
    shims = programs(
        tmp_path / "shims", python3="#!/bin/sh\necho shim\n", python3_11="#!/bin/sh\necho shim\n"
    )
    real = programs(tmp_path / "bin", python3_11="#!/bin/sh\necho real\n")
    done = start(bare(tmp_path, agent), "run", path=f"{shims}:{real}:{tmp_path / 'sh'}")
    assert done.stdout == "real\n"


def test_a_shim_is_used_when_there_is_nothing_else(agent: AgentFile, tmp_path: Path) -> None:
    shims = programs(tmp_path / "shims", python3="=")
    done = start(bare(tmp_path, agent), "--version", path=f"{shims}:{tmp_path / 'sh'}")
    assert done.returncode == 0, done.stderr


def test_an_unversioned_python_is_asked_and_an_old_one_passed_over(agent: AgentFile, tmp_path: Path) -> None:
    old = programs(tmp_path / "old", python3=OLD)
    new = programs(tmp_path / "new", platform_python="=")
    done = start(bare(tmp_path, agent), "--version", path=f"{old}:{new}:{tmp_path / 'sh'}")
    assert done.returncode == 0, done.stderr


def test_without_any_python_one_line_says_what_was_tried_and_what_to_do(
    agent: AgentFile, tmp_path: Path
) -> None:
    old = programs(tmp_path / "old", python3=OLD)
    done = start(bare(tmp_path, agent), "run", path=f"{old}:relative:{tmp_path / 'sh'}")
    assert done.returncode == 127
    assert done.stderr == (
        f"phalanx-agent: cannot start on {os.uname().nodename}: no Python 3.11 or newer found "
        f"(tried {old}/python3: 3.9.18); install one or pass --agent-python PATH\n"
    )


def test_no_directory_relative_to_the_working_directory_is_searched(agent: AgentFile, tmp_path: Path) -> None:
    programs(tmp_path / "planted", python3_11="#!/bin/sh\necho planted\n")
    file = bare(tmp_path, agent)
    done = subprocess.run(
        [file.path, "run"],
        cwd=tmp_path / "planted",
        env={"PATH": f":.:{tmp_path / 'sh'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (127, "")


def test_a_python_that_is_too_old_says_so_itself(agent: AgentFile, tmp_path: Path) -> None:
    source = (agent_sources()["__main__.py"]).decode()
    aged = source.replace("sys.version_info < (3, 11)", "sys.version_info < (99, 0)")
    assert aged != source
    path = tmp_path / "__main__.py"
    path.write_text(aged)
    done = subprocess.run([sys.executable, "-I", "-S", path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "and the agent needs 3.11 or newer; pass --agent-python PATH" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_minor_version_runs_the_sources(agent: AgentFile, tmp_path: Path) -> None:
    """Byte code with a foreign magic number stands for that of another minor version."""
    foreign = tmp_path / "foreign.pyz"
    with zipfile.ZipFile(agent.path) as built:
        files = {name: built.read(name) for name in built.namelist() if not name.endswith("/")}
    assert any(name.endswith(".pyc") for name in files)
    aged = {name: b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data for name, data in files.items()}
    foreign.write_bytes(shell_prefix(sys.version_info.minor) + zip_bytes(aged))
    foreign.chmod(0o700)
    done = start(AgentFile(foreign, "", 0), "--version")
    assert done.returncode == 0, done.stderr


def test_the_agent_starts_within_its_budget(agent: AgentFile) -> None:
    best = 9.0
    for _ in range(5):
        started = time.perf_counter()
        assert start(agent, "--version").returncode == 0
        best = min(best, time.perf_counter() - started)
    assert best < 0.08 * 3  # measured 0.018 s on a quiet machine; the budget is 0.08 s


def test_byte_code_does_not_depend_on_who_else_holds_its_objects() -> None:
    source = b"import os\n\ndef f(x):\n    return x in {'one', 'two', os.name}\n"
    first = byte_code("m.py", source)
    keep = compile(source, "m.py", "exec")
    assert byte_code("m.py", source) == first
    del keep


def test_a_source_with_a_mistake_goes_without_byte_code() -> None:
    assert set(bundle.with_byte_code({"a.py": b"def", "b.py": b"x = 1\n", "c.txt": b""})) == {
        "a.py", "b.py", "b.pyc", "c.txt",
    }  # fmt: skip


def test_the_cache_directory_follows_the_environment() -> None:
    home = {"HOME": "/home/user"}
    assert cache_directory(home) == Path("/home/user/.cache/phalanx")
    assert cache_directory({**home, "XDG_CACHE_HOME": "relative"}) == Path("/home/user/.cache/phalanx")
    assert cache_directory({**home, "XDG_CACHE_HOME": "/scratch"}) == Path("/scratch/phalanx")
    assert cache_directory({**home, "XDG_CACHE_HOME": "/scratch", "PHALANX_CACHE_DIR": "/c"}) == Path("/c")


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(CacheError, match="others can write to it; run `chmod go-w"):
        agent_file(tmp_path)


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        CacheError, match=r"cannot use the cache directory .*/file/cache: Not a directory; set PHALANX"
    ):
        agent_file(tmp_path / "file" / "cache")
