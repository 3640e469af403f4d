#!/bin/sh
# run_rocenv_tool.sh NAME [lite|full] [GUEST_OS] [VARIABLE...]: what this container is, as rows of NAME.csv.
#
# Rows are "section","name","value". Each program that is asked has a deadline of its own, all together have
# another; one that is missing is a row that says so. Nothing is installed, and the model runs whatever happens
# here: the exit status is always 0. Of the environment only variables of known purpose are shown, none whose
# name looks like that of a secret, and none of VARIABLE...
# Each GPU is printed as "Name : gfx942" too, which readers of logs look for.

name=${1:-model_env} mode=${2:-lite} guest=${3:-}
if [ "$#" -gt 3 ]; then shift 3; else shift "$#"; fi
hidden=" $* "
name=${name##*/}
case $mode in
full) each_s=10 all_s=60 most_lines=2000 ;;
lite) each_s=2 all_s=5 most_lines=200 ;;
*)
    echo "rocenv: '$mode' is neither lite nor full; lite is taken" >&2
    mode=lite each_s=2 all_s=5 most_lines=200
    ;;
esac
LC_ALL=C
export LC_ALL
tab=$(printf '\t')
rows=$name.csv.part
out=$name.csv.out
if ! : 2>/dev/null >"$rows"; then
    echo "rocenv: cannot write $name.csv here; the environment is not recorded" >&2
    exit 0
fi
# Nothing is trapped: a part of this shell that is killed right after it was forked may still run what is.

has() { command -v "$1" >/dev/null 2>&1; }

row() { # row SECTION NAME VALUE
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$rows"
}

now_s() { date +%s 2>/dev/null || echo 0; }
started_s=$(now_s)

# ask SECTION COMMAND...: run it with the deadlines, its lines in $out; false when there are none.
ask() {
    section=$1
    shift
    : >"$out"
    if ! has "$1"; then
        row "$section" "$1" 'not found'
        return 1
    fi
    if [ $(($(now_s) - started_s)) -ge "$all_s" ]; then
        row "$section" "$1" 'not asked: no time left'
        return 1
    fi
    if has timeout; then
        timeout -k 1 "$each_s" "$@" >"$out" 2>/dev/null </dev/null
        status=$?
    else
        "$@" >"$out" 2>/dev/null </dev/null &
        asked=$!
        (sleep "$each_s" && kill -9 "$asked") >/dev/null 2>&1 &
        watch=$!
        wait "$asked" 2>/dev/null
        status=$?
        kill "$watch" 2>/dev/null
    fi
    case $status in
    0) ;;
    124 | 137 | 143) row "$section" "$1" "no answer within $each_s s" ;;
    *) row "$section" "$1" "ended with $status" ;;
    esac
    [ -s "$out" ]
}

# lines_as SECTION NAME: the lines of $out as rows of one name.
lines_as() {
    count=0
    while IFS= read -r line && [ "$count" -lt "$most_lines" ]; do
        count=$((count + 1))
        if [ -n "$line" ]; then row "$1" "$2" "$line"; fi
    done <"$out"
}

# pairs_as SECTION: lines "name: value" (or "name=value") of $out as rows.
pairs_as() {
    count=0
    while IFS= read -r line && [ "$count" -lt "$most_lines" ]; do
        count=$((count + 1))
        case $line in
        *:*) row "$1" "$(trimmed "${line%%:*}")" "$(trimmed "${line#*:}")" ;;
        *=*) row "$1" "${line%%=*}" "$(unquoted "${line#*=}")" ;;
        esac
    done <"$out"
}

trimmed() {
    word=$1
    word=${word#"${word%%[! "$tab"]*}"}
    printf %s "${word%"${word##*[! "$tab"]}"}"
}

unquoted() {
    word=${1#\"}
    printf %s "${word%\"}"
}

os_section() {
    row rocenv mode "$mode"
    if [ -n "$guest" ]; then row rocenv guest_os "$guest"; fi
    if [ -r /etc/os-release ]; then
        wanted=' NAME PRETTY_NAME ID VERSION_ID VERSION_CODENAME '
        while IFS= read -r line; do
            case $wanted in *" ${line%%=*} "*) row os "${line%%=*}" "$(unquoted "${line#*=}")" ;; esac
        done </etc/os-release
    else
        row os /etc/os-release 'not found'
    fi
    if ask kernel uname -srm; then lines_as kernel uname; fi
    if [ -r /proc/cmdline ] && [ "$mode" = full ]; then
        IFS= read -r line </proc/cmdline
        row kernel cmdline "$line"
    fi
    if [ -r /proc/sys/kernel/numa_balancing ]; then
        IFS= read -r line </proc/sys/kernel/numa_balancing
        row kernel numa_balancing "$line"
    fi
}

machine_section() {
    model='' processors=0
    if [ -r /proc/cpuinfo ]; then
        while IFS= read -r line; do
            case $line in
            processor*) processors=$((processors + 1)) ;;
            'model name'*) model=$(trimmed "${line#*:}") ;;
            esac
        done </proc/cpuinfo
    fi
    if has nproc; then processors=$(nproc 2>/dev/null); fi
    row cpu model "${model:-unknown}"
    row cpu usable "$processors"
    if [ "$mode" = full ] && ask cpu lscpu; then pairs_as cpu; fi
    if [ -r /proc/meminfo ]; then
        while IFS= read -r line; do
            case $line in
            MemTotal:* | MemAvailable:* | SwapTotal:* | HugePages_Total:*)
                row memory "${line%%:*}" "$(trimmed "${line#*:}")"
                ;;
            esac
        done </proc/meminfo
    fi
    for limit in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
        if [ -r "$limit" ]; then
            IFS= read -r line <"$limit"
            row memory "$limit" "$line"
        fi
    done
}

# rocminfo lists agents; those of GPUs are called gfx... (rocm.docs.amd.com/projects/rocminfo).
gpus_section() {
    if ask gpu rocminfo; then
        while IFS= read -r line; do
            case $line in
            *Name:*gfx*--*) ;; # the instruction set of an agent, which repeats its name
            *Name:*)
                key=$(trimmed "${line%%:*}") value=$(trimmed "${line#*:}")
                case $key:$value in
                Name:gfx*)
                    row gpu Name "$value"
                    echo "Name : $value"
                    ;;
                'Marketing Name:'?*) row gpu 'Marketing Name' "$value" ;;
                esac
                ;;
            esac
        done <"$out"
    fi
    if ask gpu nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader; then
        while IFS= read -r line; do
            case $line in [0-9]*,*) row gpu "nvidia ${line%%,*}" "$(trimmed "${line#*,}")" ;; esac
        done <"$out"
    fi
    if [ "$mode" = full ]; then
        if ask gpu amd-smi static --asic --vram --bus --driver; then lines_as gpu amd-smi; fi
    fi
}

versions_section() {
    for root in "${ROCM_PATH:-}" /opt/rocm; do
        for file in "$root/.info/version" "$root/share/therock/dist_info.json"; do
            if [ -n "$root" ] && [ -r "$file" ]; then
                IFS= read -r line <"$file" || true
                row rocm "$file" "$line"
            fi
        done
    done
    if ask rocm hipconfig --version; then lines_as rocm hip; fi
    if has nvcc && ask cuda nvcc --version; then lines_as cuda nvcc; fi
    if [ -r /proc/driver/nvidia/version ]; then
        IFS= read -r line </proc/driver/nvidia/version
        row cuda driver "$line"
    fi
    for program in bash python3 gcc cmake; do
        if has "$program" && ask tools "$program" --version; then
            IFS= read -r line <"$out"
            row tools "$program" "$line"
        fi
    done
}

is_key_package() {
    case $1 in
    rocm* | hip* | rccl* | rocblas* | miopen* | hsa* | comgr* | amd-smi* | amdgpu* | rocprof* | *nccl* | cuda* | \
        libcudnn* | cudnn* | torch* | pytorch* | tensorflow* | jax* | vllm* | sglang* | triton* | flash* | \
        transformers* | deepspeed* | megatron* | numpy* | openmpi* | libopenmpi* | ucx* | libibverbs* | libfabric*)
        return 0
        ;;
    esac
    return 1
}

# packages_as KIND: lines "name version" of $out, the key ones, or all in full.
packages_as() {
    count=0
    while read -r package version _ && [ "$count" -lt "$most_lines" ]; do
        lower=$package
        case $lower in *[A-Z]*) lower=$(printf %s "$package" | tr '[:upper:]' '[:lower:]') ;; esac
        if [ "$mode" = full ] || is_key_package "$lower"; then
            count=$((count + 1))
            row "$1" "$package" "$version"
        fi
    done <"$out"
}

packages_section() {
    if has dpkg-query; then
        if ask packages dpkg-query -W -f '${Package} ${Version}\n'; then packages_as packages; fi
    elif has rpm; then
        if ask packages rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\n'; then packages_as packages; fi
    elif has apk; then
        if ask packages apk info -v; then packages_as packages; fi
    fi
    if has python3 && ask python python3 -c 'from importlib import metadata
for one in metadata.distributions():
    print(one.metadata["Name"], one.version)'; then
        packages_as python
    fi
}

is_known_variable() {
    case $1 in
    PATH | LD_LIBRARY_PATH | PYTHONPATH | HOSTNAME | SHELL | LANG | OMP_NUM_THREADS) return 0 ;;
    ROC* | HIP* | HSA_* | AMD_* | GPU_* | NCCL_* | RCCL_* | MIOPEN_* | TENSILE_* | CUDA_* | NVIDIA_* | PYTORCH_* | \
        TORCH_* | VLLM_* | SGLANG_* | GLOO_* | UCX_* | OMPI_* | FI_* | MAD_* | SLURM_* | MASTER_* | RANK | \
        WORLD_SIZE | LOCAL_RANK | NODE_RANK | NNODES | PHALANX_*)
        return 0
        ;;
    esac
    [ "$mode" = full ] && case $1 in RTL_* | POWER_* | VRAM_* | XLA_* | TF_* | JAX_* | TRITON_* | OMP_*) return 0 ;; esac
    return 1
}

looks_secret() {
    upper=$1
    case $upper in *[a-z]*) upper=$(printf %s "$1" | tr '[:lower:]' '[:upper:]') ;; esac
    case $upper in
    *SECRET* | *PASSW* | *TOKEN* | *CREDENTIAL* | *KEY* | *AUTH* | *COOKIE*) return 0 ;;
    esac
    case $hidden in *" $1 "*) return 0 ;; esac
    return 1
}

# A value of several lines may look like other variables; only what is really set is shown.
environment_section() {
    if ! has env || ! has sed; then
        row env env 'not found'
        return
    fi
    for variable in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
        if is_known_variable "$variable" && ! looks_secret "$variable"; then
            eval "is_set=\${$variable+1} value=\${$variable-}"
            if [ -z "$is_set" ]; then continue; fi
            case $value in
            *://*:*@*) value='left out: it holds a password' ;;
            *'
'*) value='left out: it has several lines' ;;
            esac
            row env "$variable" "$value"
        fi
    done
}

os_section
machine_section
gpus_section
versions_section
environment_section
packages_section

# Three fields a line, the last with whatever it holds; quotes are doubled as CSV wants it.
if has sed && has tr && {
    echo '"section","name","value"'
    tr -d '\000-\010\013-\037\177' <"$rows" | sed -e 's/"/""/g' -e "s/$tab/\",\"/" -e "s/$tab/\",\"/" -e 's/^/"/' -e 's/$/"/'
} >"$name.csv.new" 2>/dev/null && mv -f "$name.csv.new" "$name.csv"; then
    echo "rocenv: $name.csv ($mode)"
else
    rm -f "$name.csv.new"
    echo "rocenv: cannot write $name.csv: sed, tr or room is missing; the environment is not recorded" >&2
fi
rm -f "$rows" "$out"
exit 0
