"""How long the command line makes a person wait before anything has been touched.

``help_ms``: ``phalanx --help``; ``completion_ms``: the slowest of three completions (verbs, options of run,
tags of the models of ``tests/projects/mad_forty``). Both are what they take beyond a bare start of the
interpreter, which is ``interpreter_ms``; ``raw`` has the whole. ``discover_10k_s``, ``discover_10k_cpu_s``:
``phalanx discover`` of 10,000 models, the interpreter's start included, the slower of one file and of 1,000
folders. ``plan_1k_s``: ``run --dry-run --json`` of a model on 1,000 nodes of Slurm, start included, with one
program that makes models run on the way; ``plan_1k_pure_ms``: of that the plan alone, from inputs in memory.
There is no peer: no other program does this here, and the interpreter's own start is the floor of them all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.crew import BenchmarkError
from benchmarks.report import document, show

PROJECT = Path(__file__).parent.parent / "tests" / "projects" / "mad_forty"
COMMAND = (sys.executable, "-m", "phalanx.controller.cli")
COMPLETIONS = {
    "completion_verbs_ms": ("phalanx ", 1, "discover"),
    "completion_options_ms": ("phalanx run --t", 2, "--tags"),
    "completion_tags_ms": ("phalanx run --tags launch_t", 3, "launch_torchrun"),
}
#: A run on a thousand named nodes, as somebody would look at it before asking for them.
RUN = (
    *("run", "--tags", "launch_torchrun", "--target", "slurm", "-p", "gpu", "-w", "node[0001-1000]"),
    *("-N", "1000", "--image", "registry.example.invalid/team/train:1", "--dry-run", "--json"),
)
FOLDERS = 1000
#: The plan alone is made so often that the clock's steps do not count.
PLANS = 20


def timed(argv: tuple[str, ...], place: Path, environ: Mapping[str, str] = os.environ) -> tuple[float, str]:
    """Seconds of a program from start to end, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        argv, cwd=place, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise BenchmarkError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-500:]}")
    return took, done.stdout


def cpu_of_children() -> float:
    """CPU seconds of all programs that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def must(right: bool, what: str) -> None:
    """A wrong result has no speed."""
    if not right:
        raise BenchmarkError(f"wrong result: {what}")


def ms(seconds: float) -> float:
    """Milliseconds, as they are reported."""
    return round(seconds * 1000, 2)


def card(number: int) -> dict[str, Any]:
    """A card with what cards usually have."""
    return {
        "name": f"model_{number}",
        "dockerfile": f"docker/model_{number % 100}",
        "scripts": f"scripts/model_{number % 100}/run.sh",
        "n_gpus": "8",
        "owner": "benchmarks",
        "training_precision": "bf16",
        "tags": ["train", f"group_{number % 50}"],
        "args": "--batch 8",
        "timeout": 3600,
        "distributed": {"launcher": "torchrun", "nnodes": 2},
    }


def projects(folder: Path, models: int) -> dict[str, Path]:
    """A project with all models in one file, and one with them in a thousand folders."""
    cards = [card(number) for number in range(models)]
    one, many = folder / "one", folder / "many"
    one.mkdir()
    (one / "models.json").write_text(json.dumps(cards, indent=2))
    many.mkdir()
    (many / "models.json").write_text("[]")
    for number in range(min(FOLDERS, models)):
        place = many / "scripts" / f"folder_{number:04}"
        place.mkdir(parents=True)
        (place / "models.json").write_text(json.dumps(cards[number::FOLDERS], indent=2))
    return {"discover_one_file_s": one, "discover_folders_s": many}


def completion(words: str, place: int, expected: str) -> float:
    """Seconds of one completion, asked for as bash does."""
    environ = {
        **os.environ,
        "_PHALANX_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(place),
    }
    took, offered = timed(COMMAND, PROJECT, environ)
    must(f"plain,{expected}" in offered.splitlines(), f"{expected} is not offered for {words!r}")
    return took


def plan_alone() -> float:
    """Seconds of one plan for a thousand nodes from inputs in memory."""
    from phalanx.controller.plan.inputs import RunInputs
    from phalanx.controller.plan.make import plan_for_tags
    from phalanx.controller.plan.model import SlurmOptions
    from phalanx.controller.workflow.models import discover, locate

    (model,) = (locate(PROJECT, found) for found in discover(PROJECT) if found.name == "launch_torchrun")
    inputs = RunInputs(
        run_id="20260101-000000-plan-0000",
        cwd=str(PROJECT),
        models=(model,),
        target="slurm",
        nodes=1000,
        image="registry.example.invalid/team/train:1",
        slurm=SlurmOptions(partition="gpu", nodelist="node[0001-1000]"),
    )
    must(plan_for_tags(inputs).target.nodes == 1000, "the plan is not for 1000 nodes")
    began = time.perf_counter()
    for _ in range(PLANS):
        plan_for_tags(inputs)
    return (time.perf_counter() - began) / PLANS


def measure(places: Mapping[str, Path], models: int) -> dict[str, Any]:
    """One run of everything."""
    interpreter, _ = timed((sys.executable, "-c", "pass"), PROJECT)
    shown, text = timed((*COMMAND, "--help"), PROJECT)
    must("discover" in text, "--help does not name the verbs")
    completions = {name: completion(*asked) for name, asked in COMPLETIONS.items()}
    discovered, cpu = {}, []
    for name, place in places.items():
        before = cpu_of_children()
        discovered[name], text = timed((*COMMAND, "discover"), place)
        cpu.append(cpu_of_children() - before)
        must(text.count("\n") == models + 1, f"{name} did not list {models} models")
    planned, text = timed((*COMMAND, *RUN), PROJECT)
    must(json.loads(text)["target"]["nodes"] == 1000, "the plan is not for 1000 nodes")
    return {
        "models": models,
        "help_ms": ms(shown - interpreter),
        "completion_ms": ms(max(completions.values()) - interpreter),
        "discover_10k_s": round(max(discovered.values()), 3),
        "discover_10k_cpu_s": round(max(cpu), 3),
        "plan_1k_s": round(planned, 3),
        "plan_1k_pure_ms": ms(plan_alone()),
        "interpreter_ms": ms(interpreter),
        "raw": {
            "help_ms": ms(shown),
            **{name: ms(seconds) for name, seconds in completions.items()},
            **{name: round(seconds, 3) for name, seconds in discovered.items()},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    os.environ.pop("MODEL_DIR", None)
    with tempfile.TemporaryDirectory(prefix="phalanx-planning-") as folder:
        places = projects(Path(folder), options.models)
        measure(places, options.models)  # caches are warm: modules are compiled, files are in memory
        samples = [measure(places, options.models) for _ in range(options.runs)]
    show(document(samples), options.json)


if __name__ == "__main__":
    main()
