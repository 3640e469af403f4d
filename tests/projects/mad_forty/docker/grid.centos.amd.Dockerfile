# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'CENTOS'}
ARG BASE_DOCKER=rockylinux:9
FROM $BASE_DOCKER
RUN true
