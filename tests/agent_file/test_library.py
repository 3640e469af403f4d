"""The engine's client as one file, and a node that has nothing of it."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from phalanx.agent.library import LibraryUnusable, add_library, kept
from phalanx.controller.targets.library_file import (
    LibraryFile,
    LibraryIncomplete,
    headers,
    library_sources,
    library_zip,
    requirements,
    wanted,
)

SERVE = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from phalanx.agent.library import add_library
add_library(Path(sys.argv[2]), Path(sys.argv[3]))
import aiodocker, aiohttp, multidict, yarl
assert multidict.MultiDict.__module__ == "multidict._multidict_py"
assert "unknown" not in aiodocker.__version__
loaded = [str(getattr(module, "__file__", "")) for module in sys.modules.values()]
assert not [path for path in loaded if path.startswith(sys.argv[3]) and path.endswith(".so")]
async def main():
    connector = aiohttp.UnixConnector(sys.argv[4])
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get("http://engine/_ping?a=b%20c", headers={"X-A": "1"}) as response:
            print(response.status, await response.text())
    docker = aiodocker.Docker(url="unix://" + sys.argv[4])
    print((await docker.version())["Version"])
    await docker.close()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> LibraryFile:
    return library_zip(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def searched() -> Iterator[None]:
    """What a test appends to sys.path goes away again."""
    before = list(sys.path)
    yield
    sys.path[:] = before


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An engine's first words: /_ping and /version, one request a connection."""
    request = await reader.readuntil(b"\r\n\r\n")
    body = b'{"Version": "27.5.1", "ApiVersion": "1.46"}' if b"/version" in request else request.split()[1]
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    )
    writer.close()


async def test_a_python_with_nothing_talks_to_an_engine_over_its_socket(
    library: LibraryFile, tmp_path: Path
) -> None:
    socket = tmp_path / "docker.sock"
    source = str(Path(add_library.__code__.co_filename).parents[2])
    async with await asyncio.start_unix_server(engine, socket):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", SERVE,
            source, str(library.path), str(tmp_path / "c"), str(socket),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
    assert out.decode() == "200 /_ping?a=b%20c\n27.5.1\n", err.decode()


def test_the_bundle_is_pure_python_with_its_licences(library: LibraryFile) -> None:
    names = [PurePosixPath(name) for name in zipfile.ZipFile(library.path).namelist() if name[-1] != "/"]
    tops = {name.parts[0] for name in names}
    assert {"aiodocker", "aiohttp", "multidict", "yarl", "frozenlist", "propcache", "aiosignal"} <= tops
    assert {"aiohappyeyeballs", "attr", "idna"} <= tops
    assert {name.suffix for name in names if not name.parts[0].endswith(".dist-info")} == {".py"}
    for top in tops:
        if top.endswith(".dist-info"):
            inside = [name.as_posix() for name in names if name.parts[0] == top]
            assert f"{top}/METADATA" in inside
            assert [name for name in inside if "LICENSE" in name.upper()], top


def test_the_bundle_is_the_same_each_time(library: LibraryFile, tmp_path: Path) -> None:
    assert library_zip(tmp_path).sha256 == library.sha256


def test_a_distribution_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        LibraryIncomplete, match=r"phalanx-no-such-thing is not installed here; run `pip install"
    ):
        library_sources("phalanx-no-such-thing")


def test_requirements_of_extras_are_left_out() -> None:
    lines = [
        "aiohttp>=3.8",
        "attrs (>=17.3.0)",
        'typing-extensions>=4.4 ; python_version < "3.13"',
        "Brotli>=1.2; platform_python_implementation == 'CPython' and extra == 'speedups'",
        "",
    ]
    assert list(requirements(lines)) == [("aiohttp", False), ("attrs", False), ("typing-extensions", True)]


@pytest.mark.parametrize(
    ("name", "is_wanted"),
    [
        ("yarl/_url.py", True),
        ("typing_extensions.py", True),
        ("yarl-1.0.dist-info/METADATA", True),
        ("yarl-1.0.dist-info/licenses/NOTICE", True),
        ("yarl-1.0.dist-info/RECORD", False),
        ("yarl/_quoting_c.cpython-311-x86_64-linux-gnu.so", False),
        ("yarl/_quoting_c.pyx", False),
        ("frozenlist/__init__.pyi", False),
        ("../../../bin/idna", False),
        ("../../evil.py", False),
        ("/etc/evil.py", False),
        ("aiohttp/pytest_plugin.py", False),
        ("aiohttp/web.py", False),
        ("aiohttp/web_app.py", False),
        ("aiohttp/webhook.py", True),
        ("websockets/web_app.py", True),
    ],
)
def test_only_sources_metadata_and_licences_are_wanted(name: str, is_wanted: bool) -> None:
    assert wanted(PurePosixPath(name)) is is_wanted


def test_of_metadata_the_headers_are_kept() -> None:
    assert headers(b"Name: yarl\nVersion: 1.0\n\nA README.\n\nMore.\n") == b"Name: yarl\nVersion: 1.0\n\n"
    assert headers(b"Name: yarl\n") == b"Name: yarl\n"


def bundle(path: Path, **sources: str) -> Path:
    """A bundle with these modules."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in sources.items():
            archive.writestr(f"{name}.py", source)
    return path


def in_cache(cache: Path) -> Path:
    """The unpacked bundle, beside which nothing but the bundle itself lies."""
    unpacked, packed = sorted(cache.iterdir(), key=lambda path: path.is_file())
    assert packed.name == f"{unpacked.name}.zip"
    return unpacked


@pytest.mark.usefixtures("searched")
def test_a_bundle_is_left_to_later_runs_as_long_as_it_is_what_it_was(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    zipped = bundle(tmp_path / "a.zip", one="x = 1\n")
    digest = hashlib.sha256(zipped.read_bytes()).digest()
    assert kept(digest, cache) is None
    add_library(zipped, cache)
    found = kept(digest, cache)
    assert found is not None
    assert found.read_bytes() == zipped.read_bytes()
    add_library(found, cache)
    found.write_bytes(b"another one")
    assert kept(digest, cache) is None
    add_library(zipped, cache)
    assert kept(digest, cache) == found
    cache.chmod(0o777)
    assert kept(digest, cache) is None


@pytest.mark.usefixtures("searched")
def test_an_unpacked_bundle_is_used_again_and_lies_in_private(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    zipped = bundle(tmp_path / "a.zip", phalanx_tried_one="x = 1\n")
    add_library(zipped, cache)
    unpacked = in_cache(cache)
    assert stat.S_IMODE(unpacked.stat().st_mode) == stat.S_IMODE(cache.stat().st_mode) == 0o700
    before = unpacked.stat().st_ino
    add_library(zipped, cache)
    assert in_cache(cache).stat().st_ino == before
    assert sys.path.count(str(unpacked)) == 1
    import phalanx_tried_one  # type: ignore[import-not-found, unused-ignore]

    assert phalanx_tried_one.x == 1


@pytest.mark.usefixtures("searched")
def test_a_bundle_that_a_cleaner_took_files_from_is_unpacked_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    zipped = bundle(tmp_path / "a.zip", one="x = 1\n", two="x = 2\n")
    add_library(zipped, cache)
    unpacked = in_cache(cache)
    (unpacked / "two.py").unlink()
    add_library(zipped, cache)
    assert (unpacked / "two.py").read_text() == "x = 2\n"
    assert in_cache(cache) == unpacked


@pytest.mark.usefixtures("searched")
def test_a_directory_that_others_can_write_or_a_link_is_refused(tmp_path: Path) -> None:
    zipped = bundle(tmp_path / "a.zip", one="")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(LibraryUnusable, match="someone else can write to it"):
        add_library(zipped, tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    with pytest.raises(LibraryUnusable, match="cannot unpack the modules"):
        add_library(zipped, tmp_path / "link")
    cache = tmp_path / "cache"
    add_library(zipped, cache)
    unpacked = in_cache(cache)
    unpacked.chmod(0o722)
    with pytest.raises(LibraryUnusable, match="someone else can write to it"):
        add_library(zipped, cache)


@pytest.mark.usefixtures("searched")
def test_what_is_no_bundle_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(LibraryUnusable, match="File is not a zip file"):
        add_library(tmp_path / "a.zip", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("searched")
def test_names_that_point_outside_stay_inside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../escaped.py", "")
    with pytest.raises(LibraryUnusable):
        add_library(tmp_path / "a.zip", tmp_path / "cache")
    assert not (tmp_path / "escaped.py").exists()
    assert not (tmp_path.parent / "escaped.py").exists()
