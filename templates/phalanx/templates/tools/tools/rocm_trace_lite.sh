#!/bin/sh
# rocm_trace_lite.sh FOLDER COMMAND...: run COMMAND under rtl, one file for each rank.
# rtl reads RTL_MODE itself (https://github.com/sunway513/rocm-trace-lite).
folder=$1
shift
mkdir -p "$folder" || exit 1
exec rtl trace -o "$folder/trace_rank${RANK:-0}.db" "$@"
