# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=rocm/pytorch:latest
FROM $BASE_DOCKER
# Python compiles here, once, what every rank on every node would compile at its start.
RUN python3 -c "import torch.distributed.run, torch._dynamo; print(torch.__version__)"
