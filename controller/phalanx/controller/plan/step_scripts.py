"""The steps around a model's script that phalanx brings itself, as text for /bin/sh.

What varies is in arguments and variables, never in the text. Nothing but a POSIX shell is counted on: a
program that is not there is passed over, or named where the step is nothing without it.
"""

from __future__ import annotations

#: Who runs, on what, with which GPUs and versions. It tells, and fails for nothing.
FACTS = """\
# what this place is
within() { if command -v timeout >/dev/null 2>&1; then timeout -k 2 15 "$@"; else "$@"; fi; }
echo "user: $(id 2>/dev/null || echo unknown)"
echo "kernel: $(uname -srm 2>/dev/null || echo unknown)"
[ -r /etc/os-release ] && (. /etc/os-release 2>/dev/null; echo "system: ${PRETTY_NAME:-unknown}")
for path in "${ROCM_PATH:-/opt/rocm}/.info/version" /usr/local/cuda/version.json; do
    [ -r "$path" ] && echo "$path: $(tr -d '\\n' < "$path" | cut -c1-200)"
done
if command -v nvidia-smi >/dev/null 2>&1; then within nvidia-smi -L
elif command -v amd-smi >/dev/null 2>&1; then within amd-smi list
elif command -v rocm-smi >/dev/null 2>&1; then within rocm-smi
else echo "gpus: no nvidia-smi, amd-smi or rocm-smi here"
fi
exit 0
"""

#: Arguments: the address, the folder of the model's own scripts; then names of variables with user, password
#: and key, "-" for none. Credentials go from the environment to git's helper or an ssh agent, nowhere else.
CLONE = """\
# git clone ADDRESS, and the model's own scripts over it
address=$1 scripts=$2 user=$3 password=$4 key=$5
# scripts that run after a failure, too, are to be found
trap 'cp -R "$scripts/." . ; [ -z "${SSH_AGENT_PID-}" ] || ssh-agent -k >/dev/null 2>&1' EXIT
if ! command -v git >/dev/null 2>&1; then
    echo "cannot clone $address: there is no git here; add git to the image" >&2
    exit 127
fi
value() { case $1 in -) ;; *) eval "printf %s \\"\\${$1-}\\"" ;; esac; }
phx_user=$(value "$user") phx_password=$(value "$password")
export phx_user phx_password GIT_TERMINAL_PROMPT=0
git config --global --add safe.directory "$PWD" 2>/dev/null
git config --global --add safe.directory "$PWD/*" 2>/dev/null
set --
if [ -n "$phx_password" ]; then
    set -- -c credential.helper= -c \\
        'credential.helper=!f() { printf "username=%s\\npassword=%s\\n" "$phx_user" "$phx_password"; }; f'
fi
export GIT_SSH_COMMAND="ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
if [ "$key" != - ]; then
    for program in ssh-agent ssh-add; do
        command -v $program >/dev/null 2>&1 && continue
        echo "cannot clone $address: there is no $program here; add an ssh client to the image" >&2
        exit 127
    done
    eval "$(ssh-agent -s)" >/dev/null
    value "$key" | { cat; echo; } | ssh-add -q - || exit 1
fi
echo "cloning $address"
git "$@" clone --quiet -- "$address" . || {
    status=$?
    echo "cannot clone $address: git ended with status $status, its words are above" >&2
    exit "$status"
}
commit=$(git rev-parse HEAD) || exit 1
echo "commit $commit"
if [ -n "${PHALANX_RESULTS-}" ]; then
    mkdir -p "$PHALANX_RESULTS/.phalanx" && echo "$commit" > "$PHALANX_RESULTS/.phalanx/git_commit"
fi
if [ -f .gitmodules ]; then
    git "$@" submodule --quiet update --init --recursive || {
        echo "cannot clone $address: its submodules cannot be had, git's words are above" >&2
        exit 1
    }
fi
trap - EXIT
cp -R "$scripts/." .
status=$?
[ -z "${SSH_AGENT_PID-}" ] || ssh-agent -k >/dev/null 2>&1
exit "$status"
"""
