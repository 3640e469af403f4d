"""phalanx's own tools as data: every name, variable and file that users and their scripts count on."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from phalanx.controller.plan.tools import check_argv, stack
from phalanx.controller.workflow.bundled import FOLDER, bundled_files
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.tools import Definition, chosen, definitions

NAMES = [
    "rpd", "rocprof", "rocprof_hip_only", "rocprof_sys", "rocprofv3", "rocprofv3_compute",
    "rocprofv3_memory", "rocprofv3_communication", "rocprofv3_full", "rocprofv3_lightweight",
    "rocprofv3_agent", "rocprofv3_agent_counter", "rocprofv3_perfetto", "rocprofv3_api_overhead",
    "rocprofv3_pc_sampling", "rocm_trace_lite", "rocm_trace_lite_default", "rocblas_trace",
    "hipblaslt_trace", "miopen_trace", "tensile_trace", "rccl_trace", "test_tools_A", "test_tools_B",
    "gpu_info_power_profiler", "gpu_info_vram_profiler", "therock_check",
]  # fmt: skip
TOOLS = definitions(Path("/nowhere"))
LIBRARY_TRACES = [name for name in NAMES if name.endswith("_trace") and name != "rocm_trace_lite"]


def of(*names: str) -> Definition:
    (name,) = names
    return TOOLS[name]


def test_every_name_is_there_and_no_other() -> None:
    assert sorted(TOOLS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_tool_names_is_among_ours(name: str) -> None:
    tool = of(name)
    assert {script.path for script in (*tool.pre_scripts, *tool.post_scripts)} <= set(bundled_files())
    for word in shlex.split(tool.command):
        if word.startswith("../"):
            assert word.removeprefix("../") in bundled_files()


@pytest.mark.parametrize("name", NAMES)
def test_every_tool_says_what_it_is_and_makes_a_stack(name: str, tmp_path: Path) -> None:
    assert of(name).about
    tools = chosen(load_context(f'{{"tools": [{{"name": "{name}"}}]}}'), TOOLS, tmp_path)
    found = stack(tools)
    assert f"{name}_output/*" in found.collect
    assert (check_argv(found) is None) == (name == "therock_check")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("roc") and "_trace" not in name])
def test_a_profiler_leaves_its_output_where_it_is_looked_for(name: str) -> None:
    assert f"{name}_output" in shlex.split(of(name).command)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("rocprofv3")])
def test_options_of_rocprofv3_end_before_the_script(name: str) -> None:
    words = of(name).command.split()
    assert (words[0], words[-1]) == ("rocprofv3", "--")
    assert "--output-format" in words, "its default changed between releases"


def test_library_traces_share_one_command_and_differ_by_a_variable() -> None:
    assert {of(name).command for name in LIBRARY_TRACES} == {of("rccl_trace").command}
    assert {name: dict(of(name).env) for name in LIBRARY_TRACES} == {
        "rocblas_trace": {"ROCBLAS_TRACE": "1"},
        "hipblaslt_trace": {"HIPBLASLT_TRACE": "1"},
        "miopen_trace": {"MIOPEN_TRACE": "1"},
        "tensile_trace": {"TENSILE_TRACE": "1"},
        "rccl_trace": {"RCCL_TRACE": "1"},
    }
    assert all("library_trace.csv" in of(name).leaves for name in LIBRARY_TRACES)


def test_variables_have_the_names_and_defaults_that_contexts_override() -> None:
    assert dict(of("rocm_trace_lite").env) == {"RTL_MODE": "lite"}
    assert dict(of("rocm_trace_lite_default").env) == {"RTL_MODE": "default"}
    for kind, mode in (("POWER", "power"), ("VRAM", "vram")):
        file = f"gpu_info_{mode}_profiler_output.csv"
        assert dict(of(f"gpu_info_{mode}_profiler").env) == {
            f"{kind}_DEVICE": "all",
            f"{kind}_SAMPLING_RATE": "0.1",
            f"{kind}_MODE": mode,
            f"{kind}_DUAL_GCD": "false",
            f"{kind}_OUTPUT_FILE": file,
        }
        assert file in of(f"gpu_info_{mode}_profiler").leaves


def test_example_scripts_are_where_tests_of_projects_look_for_them() -> None:
    assert {
        f"{FOLDER}/tools.json",
        f"{FOLDER}/test_echo.sh",
        f"{FOLDER}/pre_scripts/pre_test.sh",
        f"{FOLDER}/pre_scripts/run_rocenv_tool.sh",
        f"{FOLDER}/post_scripts/post_test.sh",
    } <= set(bundled_files())


@pytest.mark.parametrize("name", [name for name in bundled_files() if name.endswith(".py")])
def test_programs_keep_to_python_3_8(name: str) -> None:
    text = bundled_files()[name].read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text, "annotations are of newer forms"
    newer = {"removeprefix", "removesuffix", "strict", "cache", "UTC"}
    used = {getattr(node, "attr", getattr(node, "arg", "")) for node in ast.walk(tree)}
    assert not newer & used


@pytest.mark.parametrize("name", [name for name in bundled_files() if name.endswith((".py", ".sh"))])
def test_no_program_installs_or_fetches_anything(name: str) -> None:
    text = bundled_files()[name].read_text(encoding="utf-8")
    assert not re.search(r"\b(apt|apt-get|yum|dnf|pip3?|conda|curl|wget|git clone)\b", text)
