# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=ubuntu:24.04
FROM $BASE_DOCKER
# Its build context is the project's folder, because of its name.
COPY scripts/launch/small.yaml /workspace/examples/small.yaml
