# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU', 'ctx_test': '1'}
ARG BASE_DOCKER=ubuntu:24.04
FROM $BASE_DOCKER
ENV CONTEXT_TEST=one
