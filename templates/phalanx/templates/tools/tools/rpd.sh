#!/bin/sh
# rpd.sh FOLDER COMMAND...: run COMMAND under RPD's runTracer.sh, one file for each rank.
# runTracer.sh removes a file of the name, and needs Python for the schema of a new one
# (https://github.com/ROCm/rocmProfileData, rpd_tracer).
folder=$1
shift
mkdir -p "$folder" || exit 1
exec runTracer.sh -o "$folder/trace_rank${RANK:-0}.rpd" "$@"
