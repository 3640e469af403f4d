# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=ubuntu:24.04
FROM $BASE_DOCKER
COPY --from=tools count.sh /opt/tools/count.sh
