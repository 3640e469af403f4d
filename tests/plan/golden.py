"""Dry runs of every launcher on every target with 1, 2 and 4 nodes, as files that a reviewer reads.

python -m tests.plan.golden            say what the code changes in the files
python -m tests.plan.golden --write    write them anew, after a look at what was said
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
from pathlib import Path
from typing import Any

from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.launch_table import ROWS
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import SlurmOptions
from phalanx.controller.workflow.errors import InputError

from .making import models

FOLDER = Path(__file__).with_name("golden")
TARGETS = ("local", "slurm")
NODES = (1, 2, 4)
MOE = {
    "data_parallel_size": 8,
    "tensor_parallel_size": 1,
    "enable_expert_parallel": True,
    "max_model_len": 32768,
    "distributed_executor_backend": "mp",
    "env": {"VLLM_ROCM_USE_AITER": "1"},
}
#: What a card says of itself beside its name: the launcher, and sizes where they are worth a look.
CARDS: dict[str, dict[str, Any]] = {
    **{row.name: {"distributed": {"launcher": row.name}} for row in ROWS},
    "unnamed": {},
    "vllm_moe": {"distributed": {"launcher": "vllm"}, "vllm": MOE},
    "primus": {
        "name": "primus_pretrain/megatron_bridge_llama3.1_8B",
        "distributed": {
            "launcher": "primus",
            "primus": {"config_path": "exp.yaml", "cli_extra": "--a 'b c'"},
        },
    },
    "slurm_multi": {
        "distributed": {
            "launcher": "slurm-multi",
            "sglang_disagg": {"prefill_nodes": 1, "decode_nodes": 1},
        }
    },
}


def names() -> list[str]:
    """The files that there should be, without their suffix."""
    return ["-".join(map(str, parts)) for parts in itertools.product(CARDS, TARGETS, NODES)]


def text_of(name: str) -> str:
    """The dry run of a file's name, or the words of the refusal."""
    launcher, target, nodes = name.rsplit("-", 2)
    card = {"name": "train", "n_gpus": "8", "args": "--steps 3", **CARDS[launcher]}
    options = SlurmOptions(partition="gpu", time="30", gpus_per_node="8") if target == "slurm" else None
    more: dict[str, Any] = {"slurm": options} if options else {"target": target}
    given = models(
        card,
        run_id="20260101-000000-golden-0000",
        argv=("phalanx", "run", "--tags", "train", "-N", nodes, "--dry-run"),
        environ={"BUILD_NUMBER": "7"},
        nodes=int(nodes),
        image="registry.example/train:1",
        name="golden",
        context='{"gpu_vendor": "AMD", "guest_os": "UBUNTU"}',
        **more,
    )
    try:
        return describe(plan_for_tags(given))
    except InputError as error:
        return f"{error}\n"


def recorded(name: str) -> str:
    """What the file holds, "" when there is none."""
    path = FOLDER / f"{name}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def strangers() -> list[str]:
    """Files that no case makes."""
    return sorted({path.stem for path in FOLDER.iterdir()} - set(names()))


def main(argv: list[str]) -> int:
    """Compare, or write; the exit status is 1 when a file is not current and was not written."""
    parser = argparse.ArgumentParser(prog="python -m tests.plan.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the files anew")
    write = parser.parse_args(argv).write
    changed = [name for name in names() if recorded(name) != text_of(name)]
    for name in changed:
        was, now = recorded(name).splitlines(True), text_of(name).splitlines(True)
        sys.stdout.writelines(difflib.unified_diff(was, now, f"{name} (file)", f"{name} (code)", n=0))
    if write:
        FOLDER.mkdir(exist_ok=True)
        for name in changed:
            (FOLDER / f"{name}.txt").write_text(text_of(name), encoding="utf-8")
        for name in strangers():
            (FOLDER / f"{name}.txt").unlink()
    return 0 if write or not changed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
