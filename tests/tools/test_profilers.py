"""Wrappers of profilers, with programs of their names that say how they were called."""

from __future__ import annotations

import pytest
from phalanx.controller.plan.tools import stack, wrap
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.tools import load_tools

from .place import Place

pytestmark = pytest.mark.local

#: Prints its words, then runs what follows the last word that is an option or the value of one.
TELLS = 'for word in "$@"; do printf "<%s>" "$word"; done; echo; echo "mode ${RTL_MODE:-}"'


def called(place: Place, tool: str, program: str, **env: str) -> str:
    """How a program was called by a tool around a script with one word of two parts."""
    place.program(program, f'printf "%s " {program}; {TELLS}')
    found = stack(load_tools(load_context(f'{{"tools": [{{"name": "{tool}"}}]}}'), place.root / "none"))
    values = {name: value for name, (value, _) in found.env.items()}
    done = place.run(*wrap(found, (), ("bash", "run.sh", "a b")), env={**values, **env})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[0]


SCRIPT = "<bash><run.sh><a b>"


def test_rpd_writes_a_file_for_each_rank(place: Place) -> None:
    assert called(place, "rpd", "runTracer.sh") == f"runTracer.sh <-o><rpd_output/trace_rank0.rpd>{SCRIPT}"
    assert "trace_rank3.rpd" in called(place, "rpd", "runTracer.sh", RANK="3")
    assert (place.work / "rpd_output").is_dir()


@pytest.mark.parametrize(
    ("tool", "old", "new"),
    [
        ("rocprof", "<--sys-trace>", "<--sys-trace>"),
        ("rocprof_hip_only", "<--hip-trace>", "<--hip-trace><--kernel-trace><--memory-copy-trace>"),
    ],
)
def test_rocprof_is_taken_where_it_is_and_rocprofv3_where_it_is_not(
    tool: str, old: str, new: str, place: Place
) -> None:
    folder = f"{tool}_output"
    assert called(place, tool, "rocprofv3") == (
        f"rocprofv3 <--stats><--output-format><csv><-d><{folder}>{new}<-->{SCRIPT}"
    )
    assert called(place, tool, "rocprof", RANK="1") == (
        f"rocprof <--timestamp><on><-o><{folder}/results_rank1.csv>{old}{SCRIPT}"
    )


@pytest.mark.parametrize("tool", ["rocm_trace_lite", "rocm_trace_lite_default"])
def test_rtl_is_told_the_file_and_reads_the_mode_itself(tool: str, place: Place) -> None:
    assert called(place, tool, "rtl") == f"rtl <trace><-o><{tool}_output/trace_rank0.db>{SCRIPT}"


def test_rocprof_sys_has_its_output_before_other_options(place: Place) -> None:
    assert called(place, "rocprof_sys", "rocprof-sys-sample") == (
        f"rocprof-sys-sample <--output><rocprof_sys_output><--trace><--device><-->{SCRIPT}"
    )


@pytest.mark.parametrize("tool", ["rpd", "rocprof", "rocm_trace_lite"])
def test_the_status_of_the_profiler_is_the_wrappers(tool: str, place: Place) -> None:
    for program in ("runTracer.sh", "rocprof", "rtl"):
        place.program(program, "exit 9")
    found = stack(load_tools(load_context(f'{{"tools": [{{"name": "{tool}"}}]}}'), place.root / "none"))
    assert place.run(*wrap(found, (), ("true",))).returncode == 9


class TestTheRock:
    """Markers of a build of TheRock."""

    CHECK = ("sh", "../scripts/common/pre_scripts/therock_check.sh")

    @pytest.mark.parametrize("marker", ["therock_manifest.json", "dist_info.json"])
    def test_a_marker_is_told_and_kept(self, marker: str, place: Place) -> None:
        rocm = place.root / "my rocm"
        (rocm / "share" / "therock").mkdir(parents=True)
        (rocm / "share" / "therock" / marker).write_text('{"rocm": "7.0"}', encoding="utf-8")
        done = place.run(*self.CHECK, env={"ROCM_PATH": str(rocm)})
        assert done.returncode == 0
        assert f"therock_check: {rocm} is a build of TheRock: {rocm}/share/therock/{marker}" in done.stdout
        kept = place.work / "therock_check_output" / marker
        assert kept.read_text(encoding="utf-8") == '{"rocm": "7.0"}'

    def test_a_rocm_is_found_by_its_programs(self, place: Place) -> None:
        rocm = place.root / "venv"
        (rocm / "share" / "therock").mkdir(parents=True)
        (rocm / "share" / "therock" / "dist_info.json").touch()
        (rocm / "bin").mkdir()
        program = rocm / "bin" / "hipconfig"
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o755)
        done = place.run(*self.CHECK, env={"PATH": f"{rocm}/bin:{place.environ()['PATH']}"})
        assert f"{rocm} is a build of TheRock" in done.stdout

    def test_without_a_marker_the_model_runs_unless_one_is_required(self, place: Place) -> None:
        rocm = place.root / "rocm"
        rocm.mkdir()
        done = place.run(*self.CHECK, env={"ROCM_PATH": str(rocm)})
        assert done.returncode == 0
        assert f"no ROCm here is a build of TheRock (looked in {rocm}" in done.stdout
        done = place.run(*self.CHECK, env={"ROCM_PATH": str(rocm), "THEROCK_REQUIRED": "true"})
        assert done.returncode == 1
        assert "cannot go on: THEROCK_REQUIRED is true, and no marker" in done.stderr
