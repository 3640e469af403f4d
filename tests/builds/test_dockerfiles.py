"""What is read of a Dockerfile, and which fit a context."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.builds.dockerfiles import (
    candidates,
    checked_prefix,
    files_of,
    fits,
    instructions,
    read_dockerfile,
    with_tools_stage,
)
from phalanx.controller.workflow.errors import InputError

WHOLE = """\
# syntax=docker/dockerfile:1
# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=rocm/pytorch:latest
ARG TAG
FROM --platform=linux/amd64 $BASE_DOCKER AS Base
# a comment within \\
RUN --mount=type=secret,id=MAD_SECRETS_HFTOKEN \\
    # another
    --mount=type=bind,from=tools,target=/t \\
    make \\

    all
COPY --from=base /a /b
FROM other:${TAG}
COPY --from=tools /x /y
FROM base
"""


def read(folder: Path, text: str, name: str = "x.ubuntu.amd.Dockerfile") -> object:
    (folder / name).write_text(text)
    return read_dockerfile(folder, name)


def test_what_a_build_has_to_know(tmp_path: Path) -> None:
    (tmp_path / "x.ubuntu.amd.Dockerfile").write_text(WHOLE)
    found = read_dockerfile(tmp_path, "x.ubuntu.amd.Dockerfile")
    assert found.header == {"gpu_vendor": "AMD", "guest_os": "UBUNTU"}
    assert found.arguments == {"BASE_DOCKER": "rocm/pytorch:latest", "TAG": None}
    assert found.secrets == {"MAD_SECRETS_HFTOKEN"}
    assert found.stages == {"base"}
    assert found.sources == {"tools", "base"}
    assert found.needs_tools
    assert found.stem == "x.ubuntu.amd"
    assert found.starts_from({}) == ("rocm/pytorch:latest",)
    assert found.starts_from({"TAG": "2", "BASE_DOCKER": "mine:1"}) == ("mine:1", "other:2")


@pytest.mark.parametrize(
    "line",
    [
        "COPY --link --from=tools /x /x",
        "COPY --chown=1:1 --from='tools' /x /x",
        "FROM tools AS t",
        'RUN --mount="type=bind,from=tools,target=/t" true',
    ],
)
def test_every_way_to_copy_from_the_tools(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.Dockerfile").write_text(f"FROM a\n{line}\n")
    found = read_dockerfile(tmp_path, "x.Dockerfile")
    assert found.needs_tools
    assert found.bases == ("a",)


@pytest.mark.parametrize("mount", ['"type=secret,id=X"', "type=secret,id='X'", "id=X,type=secret,required"])
def test_a_secret_is_mounted_however_it_is_quoted(tmp_path: Path, mount: str) -> None:
    (tmp_path / "x.Dockerfile").write_text(f"FROM a\nRUN --network=none --mount={mount} true\n")
    assert read_dockerfile(tmp_path, "x.Dockerfile").secrets == {"X"}


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"FROM a\n" + b"#" * (2 << 20)])
def test_what_is_no_text_or_far_too_long_is_passed_over(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    found = read_dockerfile(tmp_path, "x.tar.gz")
    assert found.header is None
    assert "is not UTF-8 text" in found.passed_over or "larger than 1 MiB" in found.passed_over


def test_a_stage_of_its_own_is_no_folder_of_tools(tmp_path: Path) -> None:
    (tmp_path / "x.Dockerfile").write_text("FROM a AS tools\nFROM b\nCOPY --from=tools / /\n")
    assert not read_dockerfile(tmp_path, "x.Dockerfile").needs_tools


def test_instructions_are_joined_and_comments_left_out() -> None:
    found = dict(instructions(WHOLE))
    assert found["RUN"].split() == [
        *(
            "--mount=type=secret,id=MAD_SECRETS_HFTOKEN",
            "--mount=type=bind,from=tools,target=/t",
            "make",
            "all",
        )
    ]


def test_a_stage_of_tools_stands_before_the_first_from_and_after_the_global_arguments() -> None:
    lines = with_tools_stage(WHOLE, "phalanx-tools:1").splitlines()
    assert lines[:5] == [*WHOLE.splitlines()[:4], "FROM phalanx-tools:1 AS tools"]
    assert lines[5:] == WHOLE.splitlines()[4:]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{'a': ", "is no dictionary"),
        ("['a']", "expected an object with text keys, found a list"),
        ("{1: 'a'}", "expected an object with text keys"),
        ("__import__('os').system('true')", "is no dictionary"),
        ("(" * 500, "is no dictionary"),
    ],
)
def test_a_context_line_that_cannot_be_read_names_file_and_line(
    tmp_path: Path, said: str, words: str
) -> None:
    (tmp_path / "x.Dockerfile").write_text(f"\n# CONTEXT {said}\nFROM a\n")
    with pytest.raises(InputError, match=r"^cannot read x\.Dockerfile: line 2: ") as raised:
        read_dockerfile(tmp_path, "x.Dockerfile")
    assert words in str(raised.value)


def test_the_context_line_is_looked_for_in_five_lines(tmp_path: Path) -> None:
    (tmp_path / "x.Dockerfile").write_text("#\n" * 5 + "# CONTEXT {'gpu_vendor': 'AMD'}\nFROM a\n")
    assert read_dockerfile(tmp_path, "x.Dockerfile").header is None


def test_what_both_name_must_be_equal_and_the_rest_does_not_count() -> None:
    context = {"gpu_vendor": "AMD", "ctx_test": "2"}
    assert fits({}, context)
    assert fits({"gpu_vendor": "AMD", "unheard": "x"}, context)
    assert not fits({"gpu_vendor": "AMD", "ctx_test": "1"}, context)
    assert not fits({"ctx_test": 2}, context)


def test_candidates_are_files_that_begin_with_the_prefix_and_a_dot(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    for name in ("b*.amd.Dockerfile", "b*.Dockerfile", "b*x.Dockerfile", "c.Dockerfile"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("")
    (folder / "b*.folder").mkdir()
    found = candidates(files_of(folder), "docker/b*", "card")
    assert found == ["docker/b*.Dockerfile", "docker/b*.amd.Dockerfile"]
    assert files_of(tmp_path / "gone") == []


@pytest.mark.parametrize("prefix", ["../x", "/etc/x", "a/../../x", "x\0y"])
def test_a_prefix_outside_the_project_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(InputError, match=r"cannot build card: dockerfile .* leaves the project's folder"):
        checked_prefix(prefix, "card")


@pytest.mark.parametrize(
    ("name", "text", "vendor"),
    [
        ("x.ubuntu.amd.Dockerfile", "FROM nvidia/cuda", "AMD"),
        ("x.ubuntu.nvidia.Dockerfile", "FROM a", "NVIDIA"),
        ("x.Dockerfile", "FROM rocm/dev", "AMD"),
        ("x.Dockerfile", "FROM nvidia/cuda", "NVIDIA"),
        ("x.Dockerfile", "FROM --platform=linux/amd64 debian", ""),
    ],
)
def test_whose_gpus_an_image_is_for(tmp_path: Path, name: str, text: str, vendor: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_dockerfile(tmp_path, name).gpu_vendor == vendor


@given(st.text(alphabet=st.sampled_from("AFRGOMUNCPY #\\\n=-,$'\"{}:x<`")))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    list(instructions(text))
    staged = with_tools_stage(text, "tools:1")
    assert staged == text or staged.replace("FROM tools:1 AS tools\n", "", 1) == text
