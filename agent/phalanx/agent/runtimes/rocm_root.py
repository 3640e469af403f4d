"""Where ROCm is in a container: what scripts find in ROCM_PATH when nobody has set it.

madengine's chain: what the user says, else the image's ROCM_PATH, else its ROCM_HOME, else what is found in
the image, else /opt/rocm. The first two reach the workload by themselves; this is the rest of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from phalanx.protocol.messages import ContainerSpec

NAME, HOME, USUAL = "ROCM_PATH", "ROCM_HOME", "/opt/rocm"
#: A container with this device has AMD's GPUs.
KFD = "/dev/kfd"


def rocm_defaults(image_env: Iterable[str], spec: ContainerSpec, in_opt: Collection[str]) -> dict[str, str]:
    """Values below all that anyone says. ``image_env``: NAME=VALUE of the image; ``in_opt``: names in /opt.

    Nothing for a container without AMD's GPUs, unless its image has ROCM_HOME.
    """
    said = dict(text.partition("=")[::2] for text in image_env)
    if said.get(NAME):
        return {}
    if said.get(HOME):
        return {NAME: said[HOME]}
    if not any(device.source == KFD for device in spec.devices):
        return {}
    versions = [name for name in in_opt if name.startswith("rocm-")]
    if "rocm" in in_opt or not versions:
        return {NAME: USUAL}
    return {NAME: f"/opt/{max(versions, key=_numbers)}"}


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", name)]
