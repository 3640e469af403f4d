#!/bin/sh
# Says whether a ROCm here is a build of TheRock, by its marker files, and keeps a copy of what they say.
# Without one it fails only where THEROCK_REQUIRED is true.
keep=therock_check_output
on_path=$(command -v hipconfig || command -v rocminfo || command -v amd-smi)
found='' seen=''
for root in "${ROCM_PATH:-}" "${ROCM_HOME:-}" /opt/rocm /opt/rocm-* "${on_path%/bin/*}"; do
    case $root in '' | */) root=${root%/} ;; esac
    if [ -z "$root" ] || [ ! -d "$root" ]; then continue; fi
    root=$(cd -P "$root" && pwd) || continue
    case ":$seen:" in *":$root:"*) continue ;; esac
    seen=$seen:$root
    for marker in therock_manifest.json dist_info.json; do
        file=$root/share/therock/$marker
        if [ -f "$file" ]; then
            echo "therock_check: $root is a build of TheRock: $file"
            mkdir -p "$keep" && cp "$file" "$keep/$marker" || echo "therock_check: cannot keep a copy of $file" >&2
            found=1
        fi
    done
    if [ -n "$found" ]; then break; fi
done
if [ -n "$found" ]; then exit 0; fi
echo "therock_check: no ROCm here is a build of TheRock (looked in ${seen#:})"
case ${THEROCK_REQUIRED:-} in
1 | true | yes | on)
    echo "cannot go on: THEROCK_REQUIRED is ${THEROCK_REQUIRED}, and no marker of TheRock was found" >&2
    exit 1
    ;;
esac
exit 0
