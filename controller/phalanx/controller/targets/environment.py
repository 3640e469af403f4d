"""Which variables of the login's environment go where.

An agent needs little, and the login's environment is full of what it must not have: tokens, and paths that
break programs of another machine. So agents get a short list of names on every target, and a workload's
variables come from the plan alone. Slurm's commands get the login's environment without the variables that
change what they do or print: inside an allocation ``SLURM_MEM_PER_CPU`` makes ``srun --mem=0`` fail,
``SQUEUE_FORMAT`` and ``SCANCEL_STATE`` are options in disguise (srun(1), squeue(1), scancel(1): INPUT
ENVIRONMENT VARIABLES).
"""

from __future__ import annotations

from collections.abc import Mapping

#: What an agent may know of the login. Not TMPDIR: on another machine that folder may not exist.
AGENT_NAMES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "PHALANX_CACHE_DIR",
)
#: Names of Slurm's own that say which cluster and who, not what to do.
SLURM_NAMES = frozenset(
    {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_CONFIG_FETCH"}
)
#: Prefixes of variables that stand for options of Slurm's commands. SALLOC_ stays: those are the user's
#: defaults.
SLURM_PREFIXES = ("SLURM_", "SLURMD_", "SRUN_", "SQUEUE_", "SCANCEL_", "SACCT_", "SINFO_", "SCONTROL_")


def agent_names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables that an agent gets, of those that are set."""
    return tuple(name for name in AGENT_NAMES if name in environ)


def agent_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment of an agent on this machine; its temporary folder is the caller's."""
    return {name: environ[name] for name in (*AGENT_NAMES, "TMPDIR") if name in environ}


def slurm_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment for Slurm's commands. Libraries never travel with the agent file: it needs none (srun
    --send-libs)."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in SLURM_NAMES or not name.startswith(SLURM_PREFIXES)
    }
    return {**kept, "SLURM_SEND_LIBS": "no"}
