#!/bin/sh
# The head of phalanx-agent.pyz: POSIX sh finds a Python, and Python then reads the zip that follows from its end.
# A name with its version in it (python3.12) needs no proving; any other is asked once. Shims come last: they are
# slow, and may lead nowhere. Only absolute directories are searched.

phalanx_words=" $* "

# Says why, removes the copy that was made here if Python would have done that, and ends.
phalanx_cannot() {
  echo "phalanx-agent: cannot start on $(uname -n): $1" >&2
  case $phalanx_words in *" --remove-self "*) rm -f -- "$0" ;; esac
  exit 127
}

# Sets py to the first executable NAME in the search path; $2 says whether "real" ones or "shim"s are wanted.
phalanx_search() {
  for phalanx_dir in $phalanx_dirs; do
    case $phalanx_dir in
    */shims | */shims/) phalanx_is=shim ;;
    /*) phalanx_is=real ;;
    *) continue ;;
    esac
    py=${phalanx_dir%/}/$1
    [ "$phalanx_is" = "$2" ] && [ -x "$py" ] && [ ! -d "$py" ] && return 0
  done
  return 1
}

# Asks $py for its version; 0 when it will do. What will not is noted for the message.
phalanx_proved() {
  phalanx_version=$("$py" -I -S -c \
    'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) && return 0
  phalanx_tried="${phalanx_tried}${phalanx_tried:+, }$py: ${phalanx_version:-does not run}"
  return 1
}

phalanx_find() {
  for phalanx_minor in @MINORS@; do
    phalanx_search "python3.$phalanx_minor" real && return 0
  done
  for phalanx_name in python3 platform-python; do
    phalanx_search "$phalanx_name" real && phalanx_proved && return 0
  done
  for phalanx_name in @SHIMS@ python3; do
    phalanx_search "$phalanx_name" shim && phalanx_proved && return 0
  done
  return 1
}

case ${1-} in
--python)
  py=${2-}
  case $py in
  /*) ;;
  *) phalanx_cannot "--python wants an absolute path, not '$py'; correct --agent-python" ;;
  esac
  [ -x "$py" ] && [ ! -d "$py" ] || phalanx_cannot "there is no executable $py here; correct --agent-python"
  shift 2
  ;;
*)
  phalanx_tried=
  set -f
  phalanx_ifs=$IFS
  IFS=:
  phalanx_dirs=
  for phalanx_dir in ${PATH-} /usr/local/bin /usr/bin /bin /usr/libexec; do
    phalanx_dirs="$phalanx_dirs${phalanx_dirs:+:}$phalanx_dir"
  done
  phalanx_find || phalanx_cannot "no Python 3.11 or newer found (tried ${phalanx_tried:-python3 and python3.11 to python3.14: none there}); install one or pass --agent-python PATH"
  IFS=$phalanx_ifs
  set +f
  ;;
esac
exec "$py" -I -S "$0" "$@"
exit 127
