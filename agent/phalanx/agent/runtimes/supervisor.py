"""The shell scripts that run in a container, for a POSIX sh with sleep, cat, mv and rm (busybox, dash, bash).

``SUPERVISE`` is PID 1: it ends the container when the lease is over, whoever else is alive, reaps orphans,
and ends steps on request. ``STEP`` starts one command with output to files and leaves its status by rename.
Both are mounted read-only; neither gets a value of the environment in its arguments.

With the node's processes in sight (``--pid=host``) it is not PID 1, and "all" would be all of the node: there
it tells those of its container by their control group, and holds no container where it cannot tell them.
"""

from __future__ import annotations

#: Exit status of PID 1 that says: the lease was over (EX_TEMPFAIL of sysexits.h).
LEASE_OVER = 75

#: Exit status of PID 1 that says: the image has not what the supervisor needs (EX_UNAVAILABLE).
UNUSABLE = 69

#: Exit status of the supervisor that says: it cannot tell the container's processes from the node's.
UNTOLD = 70

#: Files of the control directory, beside the lease.
REQUESTS = "requests"

#: Made in the spool of the case when PID 1 ends everything unasked: one of the two words below.
WHY, WHY_LEASE, WHY_OUTSIDE = "why", "lease", "outside"

SUPERVISE = r"""
dir=/run/phalanx
seen=0

command -v sleep >/dev/null 2>&1 || exit 69

# Wait a tenth of a second if this sleep can, else a second; says how many tenths it was.
nap() {
    if sleep 0.1 2>/dev/null; then tenths=1; else sleep 1; tenths=10; fi
}

# Sets groups to the control groups of a process, as one word.
groups_of() {
    groups=
    while read -r line; do groups="$groups${line#*:};"; done <"/proc/$1/cgroup"
} 2>/dev/null

# "" where only this container's processes are to be seen.
own=
if [ $$ != 1 ]; then
    groups_of $PPID
    theirs=$groups
    groups_of $$
    own=$groups
    # who started this (an engine's shim) is outside: in one group with it, nothing tells the container's own
    [ -n "$own" ] && [ -n "$theirs" ] && [ "$own" != "$theirs" ] || exit 70
fi

# True for a process of this container.
ours() {
    [ -z "$own" ] && return 0
    groups_of "$1"
    [ "$groups" = "$own" ]
}

# Sets parent, session, state and program (where its stack begins: another one after each exec) of a process
# of this container from /proc; false when it is gone or only waits to be reaped.
look() {
    ours "$1" || return 1
    read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    line=${line##*) }
    set -- $line
    state=$1 parent=$2 session=$4 program=${26}
    [ "$state" != Z ] && [ "$state" != X ]
} 2>/dev/null

others() {
    for entry in /proc/[0-9]*; do
        [ "${entry#/proc/}" != $$ ] && look "${entry#/proc/}" && return 0
    done
    return 1
}

# each SIGNAL: to all of this container but this process. One by one, some may fork meanwhile: so twice.
each() {
    if [ -z "$own" ]; then
        kill "-$1" -1
        return
    fi
    for round in 1 2; do
        for entry in /proc/[0-9]*; do
            [ "${entry#/proc/}" != $$ ] && look "${entry#/proc/}" && kill "-$1" "${entry#/proc/}"
        done
    done
} 2>/dev/null

# end STATUS GRACE [WHY]: TERM to everyone, and with this process the rest goes. A WHY says that the agent did
# not ask for it: what a command makes of its TERM is no result then, not even 0.
end() {
    trap '' TERM USR1
    [ -n "$3" ] && echo "$3" >"$dir/spool/why"
    left=$(($2 * 10))
    if [ "$left" -gt 0 ]; then
        each TERM
        each CONT
        while [ "$left" -gt 0 ] && others; do
            nap
            left=$((left - tenths))
        done
    fi 2>/dev/null
    # a kernel ends what PID 1 leaves behind; of any other process, an engine has to
    [ -z "$own" ] || each KILL
    exit "$1"
}

# members MARK FIRST: the processes of a step but for its wrapper FIRST: those with the mark in their
# environment, those in its session, and all that descends from any of them.
members() {
    found=" $2 "
    for entry in $(grep -lsF "PHALANX_STEP_ID=$1" /proc/[0-9]*/environ 2>/dev/null); do
        entry=${entry#/proc/}
        found="$found${entry%/environ} "
    done
    grown=yes
    while [ -n "$grown" ]; do
        grown=
        for entry in /proc/[0-9]*; do
            pid=${entry#/proc/}
            case $found in *" $pid "*) continue ;; esac
            look "$pid" || continue
            case $session in "$2") found="$found$pid " grown=yes; continue ;; esac
            case $found in *" $parent "*) found="$found$pid " grown=yes ;; esac
        done
    done
    alive=
    for pid in $found; do
        [ "$pid" != "$2" ] && [ "$pid" != $$ ] && [ "$pid" != "$3" ] && look "$pid" && alive="$alive $pid"
    done
    return 0
}

# tell: TERM to each of $alive, once to each program that it runs: a shell loses the TERM of a child that it
# has only just forked. A newcomer whose parent was told and lives on is left to it: it may be saving work.
tell() {
    for pid in $alive; do
        look "$pid" || continue
        case $told in
            *" $pid/$program "*) continue ;;
            " " | *" $pid/"*) ;;
            *) case "$alive " in *" $parent "*) continue ;; esac ;;
        esac
        now="$now$pid/$program "
        kill -TERM "$pid"
        kill -CONT "$pid"
    done
    told="$told$now" now=
}

# finished MARK FIRST DIRECTORY SELF: true when nobody is left and the wrapper will start nobody any more.
finished() {
    wrapper=
    [ -e "$3/ended" ] || ! look "$2" || wrapper=alive
    members "$1" "$2" "$4"
    [ -z "$alive$wrapper" ]
}

# stop MARK FIRST DIRECTORY GRACE SELF: TERM, wait, KILL until nobody is left, then say so.
stop() {
    told=" " now=
    kill -CONT "$2" # the wrapper, if the place is paused
    left=$(($4 * 10))
    while [ "$left" -gt 0 ] && ! finished "$1" "$2" "$3" "$5"; do
        tell
        nap
        left=$((left - tenths))
    done
    left=100
    while ! finished "$1" "$2" "$3" "$5"; do
        [ "$left" -gt 0 ] || return
        [ -n "$alive" ] && kill -KILL $alive
        nap
        left=$((left - tenths))
    done
    : >"$3/gone"
} 2>/dev/null

# Lines of "NUMBER stop MARK FIRST DIRECTORY GRACE", "NUMBER end GRACE OWNER", "NUMBER pause" and
# "NUMBER resume"; each is heeded once.
heed() {
    [ -r "$dir/requests" ] || return 0
    while read -r number verb a b c d; do
        [ "$number" -gt "$seen" ] 2>/dev/null || continue
        seen=$number
        case $verb in
            # the last word keeps the subshell's own pid out of the list: $$ is the supervisor's there
            stop) (read -r self rest </proc/self/stat; stop "$a" "$b" "$c" "$d" "$self") & ;;
            end) [ "$b" != - ] && chown -R "$b" "$dir/spool" "$dir/results" /myworkspace 2>/dev/null
                end 0 "$a" ;;
            # in one go for all but this process; the sleep that is waited for comes after it
            pause) each STOP ;;
            resume) each CONT ;;
        esac
    done <"$dir/requests"
}

# True when the lease is over: read twice, a lease is renewed while it is looked at.
over() {
    for try in 1 2; do
        read -r until rest <"$dir/expires" || until=0
        read -r now rest </proc/uptime
        [ "${now%%.*}" -ge "$until" ] || return 1
    done
} 2>/dev/null

trap 'end 143 8 outside' TERM INT
trap : USR1
while :; do
    over && end 75 1 lease
    heed
    sleep 1 &
    wait $!
done
"""

STEP = r"""
# step DIRECTORY OWNER: OWNER is who gets the results ("-": they are his already)
phx_dir=$1 phx_owner=$2
exec </dev/null >/dev/null 2>"$phx_dir/shell"
# handlers, not ignored signals: a command that signals its group must not end this shell, nor inherit it
trap : HUP INT QUIT TERM USR1 USR2
echo $$ >"$phx_dir/pid.tmp" && mv -f "$phx_dir/pid.tmp" "$phx_dir/pid"

phx_words=$(cat "$phx_dir/env") && rm -f "$phx_dir/env"
phx_read=$?

refuse() {
    echo "$2" >"$phx_dir/refused"
    exit "$1"
}

# Sets phx_program to the file that NAME is, by PATH; no builtin of this shell may stand in for it.
find_program() {
    case $1 in */*) phx_program=$1; return ;; esac
    phx_denied=
    phx_old=$IFS
    IFS=:
    for phx_part in $PATH; do
        phx_program=${phx_part:-.}/$1
        [ -f "$phx_program" ] || continue
        if [ -x "$phx_program" ]; then IFS=$phx_old; return; fi
        phx_denied=$phx_program
    done
    IFS=$phx_old
    phx_program=${phx_denied:-$1}
}

check() {
    [ -e "$phx_program" ] || refuse 127 "not found: $1"
    [ ! -d "$phx_program" ] && [ -x "$phx_program" ] || refuse 126 "not executable: $1"
    read -r phx_first 2>/dev/null <"$phx_program" || return 0
    case $phx_first in '#!'*) ;; *) return 0 ;; esac
    phx_first=${phx_first#'#!'}
    set -- "$1" $phx_first
    [ -e "$2" ] || refuse 126 "not executable: $1: its interpreter $2 is not there"
}

(
    # who stops a step kills whatever of it there is: what reads the command for it, too
    [ "$phx_read" -le 128 ] || exit "$phx_read"
    [ "$phx_read" -eq 0 ] || refuse 126 "its command cannot be read"
    eval "$phx_words"
    unset phx_words
    phx_name=$1
    if [ "$1" = env ] && [ -n "$phx_real" ]; then phx_name=$phx_real; fi
    unset phx_real
    find_program "$phx_name"
    check "$phx_name"
    find_program "$1"
    shift
    exec "$phx_program" "$@"
) >>"$phx_dir/out" 2>>"$phx_dir/err"
phx_status=$?
: >"$phx_dir/ended"

phx_how=exited
if [ -f "$phx_dir/refused" ]; then
    read -r phx_why <"$phx_dir/refused"
    phx_how="not_started $phx_why"
elif [ "$phx_status" -gt 128 ]; then
    # A shell says on its own stderr that a child was killed, but for INT and PIPE, which are taken as such.
    case $phx_status in 130 | 141) phx_how=signaled ;; *) [ -s "$phx_dir/shell" ] && phx_how=signaled ;; esac
fi
[ "$phx_owner" != - ] && chown -R "$phx_owner" "$phx_dir" /run/phalanx/results
phx_new=$phx_dir/status.tmp
printf '%-255s\n' "$phx_status $phx_how" 1<>"$phx_new" && mv -f "$phx_new" "$phx_dir/status"
"""
