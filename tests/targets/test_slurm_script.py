"""The batch script of a plan: what it says, and that the real sbatch reads it as it was meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.plan.launch_table import ROWS
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import SlurmOptions
from phalanx.controller.targets.slurm_argv import salloc
from phalanx.controller.targets.slurm_script import ScriptError, quote, sbatch_script

from tests.lab import Lab, LabError, missing_parts
from tests.plan.making import models

ODD = "two words #1 'q' \"d\" \\b $HOME `id` ; é"


NOTHING = SlurmOptions()


def made(options: SlurmOptions = NOTHING, **more: object) -> str:
    given_values = {
        "nodes": 2,
        "name": "x",
        "run_id": "r1",
        "cwd": "/proj",
        "argv": ("phalanx", "run"),
        **more,
    }
    return sbatch_script(options, **given_values)  # type: ignore[arg-type]


def test_the_script_asks_for_what_salloc_would_and_starts_phalanx_within() -> None:
    options = SlurmOptions(partition="gpu", time="2:00:00", exclusive=True, extra=("--mem=0", "srun:--x"))
    text = made(options, argv=("phalanx", "run", "--name", "a b"))
    assert text.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --no-kill",
        "#SBATCH --job-name=phalanx-x",
        "#SBATCH --comment=phalanx:r1",
        "#SBATCH --nodes=2",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=2:00:00",
        "#SBATCH --exclusive",
        "#SBATCH --mem=0",
        "cd /proj && exec phalanx run --name 'a b'",
    ]


@pytest.mark.parametrize("name", ["a\nb", "a\n#SBATCH --uid=0", "a\rb", "a\0b", "x" * 5000, "\x7f"])
def test_what_no_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ScriptError, match="cannot write"):
        made(name=name)
    with pytest.raises(ScriptError, match="cannot write"):
        made(SlurmOptions(partition=name))


def test_a_command_with_a_line_break_is_refused() -> None:
    with pytest.raises(ScriptError, match="the command"):
        made(argv=("phalanx", "run", "--", "a\nb"))
    with pytest.raises(ScriptError, match="the command"):
        made(cwd="/a\n/b")


@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=("Cs",))))
def test_a_quoted_word_is_one_word_whatever_it_holds(word: str) -> None:
    """Quotes read the same for a shell, whose splitting Python has."""
    quoted = quote(f"--x={word}")
    assert shlex.split(quoted, comments=True) == [f"--x={word}"]


@given(
    st.text(
        st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=("Cs",)), min_size=1
    )
)
def test_the_last_line_is_our_command_and_nothing_else(word: str) -> None:
    last = made(cwd=f"/{word}", argv=("phalanx", "run", "--", word)).splitlines()
    if not any(letter in word for letter in "\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"):
        assert shlex.split(last[-1]) == ["cd", f"/{word}", "&&", "exec", "phalanx", "run", "--", word]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    missing = missing_parts(slurm=True)
    if missing:
        pytest.skip(f"no lab here: {', '.join(missing)}")
    lab = Lab.up(name="sbatch", nodes=4, gpus=8, fresh=True)
    yield lab
    lab.down()


@pytest.mark.lab
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_the_real_sbatch_accepts_the_options_of_every_launcher(lab: Lab, tmp_path: Path, nodes: int) -> None:
    options = SlurmOptions(partition="lab", time="10", gpus_per_node="8", exclude="", exclusive=True)
    for row in ROWS:
        if nodes < row.fewest_nodes:
            continue
        card = {"n_gpus": "8", "distributed": {"launcher": row.name}}
        plan = plan_for_tags(models(card, nodes=nodes, image="x", slurm=options))
        script = tmp_path / f"{row.name}.sbatch"
        script.write_text(
            made(
                plan.target.slurm, nodes=plan.target.nodes, name=plan.name, run_id=plan.run_id, argv=plan.argv
            )
        )
        lab.ask_slurm(["sbatch", "--test-only", str(script)])


@pytest.mark.lab
def test_the_real_sbatch_reads_odd_words_as_they_were_meant(lab: Lab, tmp_path: Path) -> None:
    options = SlurmOptions(partition="lab", extra=(f"--comment={ODD}",))
    script = tmp_path / "odd.sbatch"
    script.write_text(made(options, name=ODD))
    job = lab.ask_slurm(["sbatch", "--parsable", "--hold", str(script)]).strip()
    try:
        shown = lab.ask_slurm(["squeue", "--noheader", f"--jobs={job}", "--format=%j|%k"]).rstrip("\n")
    finally:
        lab.ask_slurm(["scancel", job])
    assert shown == f"phalanx-{ODD}|{ODD}"


@pytest.mark.lab
def test_the_real_sbatch_refuses_what_the_cluster_lacks(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "none.sbatch"
    script.write_text(made(SlurmOptions(partition="no-such")))
    with pytest.raises(LabError, match="invalid partition"):
        lab.ask_slurm(["sbatch", "--test-only", str(script)])


def test_the_options_are_salloc_s_own() -> None:
    options = SlurmOptions(partition="p", nodelist="n[1-4]")
    words = [
        line.removeprefix("#SBATCH ") for line in made(options).splitlines() if line.startswith("#SBATCH")
    ]
    assert set(words) < set(salloc(options, nodes=2, name="x", run_id="r1"))
