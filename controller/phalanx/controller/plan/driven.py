"""What is different in a case whose script runs on the first node alone and drives the others itself.

Its environment is handed on to every node by ``srun``, so nothing in it may be of one node. Its rows are in a
file that it writes, in one of the places where madengine looks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os.path import normpath
from pathlib import PurePosixPath

from phalanx.protocol.messages import JOB_NUMBER

from ..workflow.card import ModelCard
from ..workflow.errors import InputError
from ..workflow.placeholders import refuse_placeholder
from .env import Environment
from .inputs import RunInputs
from .model import StepPlan
from .placement import Placement

IMAGE_NAME = "DOCKER_IMAGE_NAME"
CSV = "perf.csv"


def driven_steps(steps: Iterable[StepPlan]) -> tuple[StepPlan, ...]:
    """All on the first node, but for a clone and data: folders of the script are on every node."""
    return tuple(replace(one, per="node" if _of_all(one) else "first") for one in steps)


def _of_all(step: StepPlan) -> bool:
    return step.name == "clone" or step.name.startswith("data-")


def put_driven(environment: Environment, inputs: RunInputs, placement: Placement, image: str) -> None:
    """Make the environment of a case that of its driving script, after all that anyone has said.

    ``image``: of the case, "" for none. The name that the script reads is that of the image which all nodes
    have; another one is said to be of no use.
    """
    rank = environment.values.get("MAD_NODE_RANK")
    if rank is not None and rank.template:
        del environment.values["MAD_NODE_RANK"]
    if placement.target.kind == "slurm" and "SLURM_SUBMIT_DIR" not in environment.values:
        environment.put_literal("SLURM_SUBMIT_DIR", inputs.cwd, "phalanx")
    if not image:
        return
    said = environment.values.get(IMAGE_NAME)
    if said is not None and said.value != image:
        placement.warnings.append(
            f"{said.origin} is not used: {IMAGE_NAME} is the image that every node gets, {image}; "
            "say another one with --image NAME"
        )
    origin = said.origin if said is not None and said.value == image else "phalanx"
    environment.put_literal(IMAGE_NAME, image, origin)


def _results_dir(inputs: RunInputs, card: ModelCard) -> str:
    """The context's word, else the card's."""
    block = inputs.context.slurm
    origin = inputs.context.origin("slurm.results_dir")
    said: object = block.results_dir if block else ""
    if not said:
        said, origin = card.slurm.get("results_dir") or "", f"{card.where}: slurm.results_dir"
    if not isinstance(said, str) or "\0" in said:
        raise InputError(f"cannot use {origin}: expected the path of a folder, found {said!r}")
    refuse_placeholder(said, origin)
    return said


def result_places(inputs: RunInputs, card: ModelCard) -> tuple[str, ...]:
    """Where the script may leave its rows, the first that has a new file counts.

    The folder of ``slurm.results_dir``, then the script's own folder, then those of madengine. Raises
    InputError.
    """
    said = _results_dir(inputs, card)
    user = inputs.environ.get("USER") or inputs.environ.get("LOGNAME") or ""
    here = PurePosixPath(inputs.cwd)
    if said and PurePosixPath(normpath(here / said)) == here:
        raise InputError(
            f"cannot use slurm.results_dir {said!r}: it is the folder of {CSV}, into which all runs here "
            "write; let the script write into a folder of its own"
        )
    shared = PurePosixPath("/shared_inference", user)
    of_madengine = (shared / JOB_NUMBER / CSV, shared / "model_blog_logs" / JOB_NUMBER / CSV) if user else ()
    return (
        *((str(here / said / "perf*.csv"),) if said else ()),
        card.multiple_results or CSV,
        *map(str, of_madengine),
        str(here / "slurm_output" / "perf_csv" / f"*{JOB_NUMBER}*.csv"),
    )
