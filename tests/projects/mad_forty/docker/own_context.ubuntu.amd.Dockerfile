# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=ubuntu:24.04
FROM $BASE_DOCKER
COPY greeting.txt /opt/greeting.txt
