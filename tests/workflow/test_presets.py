"""Presets: the files say what the schema knows, and nothing of one site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phalanx.controller.workflow import presets
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.presets import preset_for


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_context_and_says_where_its_values_are_from(name: str) -> None:
    context = load_context(json.dumps(presets.document(name)))
    assert context.warnings == ()
    assert set(presets.document(name)) <= {"slurm", "env_vars"}
    file = Path(presets.__path__[0], f"{name}.json")
    assert "madengine" in json.loads(file.read_text(encoding="utf-8"))["_source"]


@pytest.mark.parametrize("name", presets.names())
def test_no_preset_names_a_site_or_turns_hardware_off(name: str) -> None:
    said = presets.document(name)
    forbidden = {"NCCL_SOCKET_IFNAME", "NCCL_IB_DISABLE", "HSA_ENABLE_SDMA", "MIOPEN_USER_DB_PATH"}
    assert not forbidden & set(said.get("env_vars", {}))
    assert not {"partition", "time", "gpus_per_node", "nodes", "account"} & set(said.get("slurm", {}))


def test_the_preset_goes_by_target_nodes_and_vendor() -> None:
    assert preset_for("local", 4, "").values == {}
    one, many = preset_for("slurm", 1, ""), preset_for("slurm", 2, "AMD")
    assert one.values["slurm.exclusive"] == (True, "preset slurm/defaults: slurm.exclusive")
    assert set(one.block("env_vars")) == {"OMP_NUM_THREADS", "MIOPEN_FIND_MODE", "NCCL_DEBUG"}
    assert many.block("env_vars")["NCCL_DEBUG"] == ("WARN", "preset slurm/multi-node: env_vars.NCCL_DEBUG")
    assert "HSA_FORCE_FINE_GRAIN_PCIE" in many.block("env_vars")
    other = preset_for("slurm", 2, "NVIDIA").block("env_vars")
    assert not any(name.startswith(("HSA_", "MIOPEN_", "GPU_MAX", "RCCL_")) for name in other)
    assert other["NCCL_DEBUG"][0] == "WARN"
