#!/bin/sh
# rocprof.sh FOLDER system|hip COMMAND...: run COMMAND under rocprof, or under rocprofv3 where there is no rocprof.
# Options of both: https://rocm.docs.amd.com/projects/rocprofiler and .../projects/rocprofiler-sdk. rocprof has no
# word for the end of its options; rocprofv3 needs one, and has kernels apart from the traces of the APIs.
folder=$1 kind=$2
shift 2
mkdir -p "$folder" || exit 1
if command -v rocprof >/dev/null 2>&1; then
    case $kind in
    hip) set -- --hip-trace "$@" ;;
    *) set -- --sys-trace "$@" ;;
    esac
    exec rocprof --timestamp on -o "$folder/results_rank${RANK:-0}.csv" "$@"
fi
case $kind in
hip) set -- --hip-trace --kernel-trace --memory-copy-trace -- "$@" ;;
*) set -- --sys-trace -- "$@" ;;
esac
exec rocprofv3 --stats --output-format csv -d "$folder" "$@"
