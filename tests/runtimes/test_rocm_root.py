"""Where scripts of a container find ROCm when nobody has said it."""

from __future__ import annotations

import pytest
from phalanx.agent.runtimes.rocm_root import rocm_defaults
from phalanx.protocol.messages import ContainerSpec, Device, Runtime

AMD = ContainerSpec(Runtime.DOCKER, devices=(Device("/dev/kfd", "/dev/kfd"),))
OTHER = ContainerSpec(Runtime.DOCKER, gpus="all")


@pytest.mark.parametrize(
    ("spec", "image_env", "in_opt", "found"),
    [
        (AMD, ["ROCM_PATH=/x", "ROCM_HOME=/y"], ["rocm"], {}),
        (AMD, ["PATH=/bin", "ROCM_HOME=/y"], ["rocm"], {"ROCM_PATH": "/y"}),
        (OTHER, ["ROCM_HOME=/y"], [], {"ROCM_PATH": "/y"}),
        (AMD, [], ["rocm", "rocm-6.2.0"], {"ROCM_PATH": "/opt/rocm"}),
        (AMD, [], ["rocm-6.9.0", "rocm-6.10.1", "other"], {"ROCM_PATH": "/opt/rocm-6.10.1"}),
        (AMD, ["ROCM_PATH="], [], {"ROCM_PATH": "/opt/rocm"}),
        (OTHER, [], ["rocm"], {}),
    ],
)
def test_the_image_says_or_it_is_looked_for_where_amds_gpus_are(
    spec: ContainerSpec, image_env: list[str], in_opt: list[str], found: dict[str, str]
) -> None:
    assert rocm_defaults(image_env, spec, in_opt) == found
