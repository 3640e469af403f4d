"""Options of ``docker run`` that no container of phalanx gets, each with why and what to do instead.

An option is refused by name rather than dropped: half a container is worse than none.
"""

from __future__ import annotations

_STARTS = "phalanx starts the container; leave it out"
_OUTPUT = "output goes into phalanx's own files, whatever the engine logs; leave it out"
_PORTS = "ranks meet on the node's own network, where every port is open already; leave it out"
_SWAP = "--memory is where memory ends, swap included; leave it out"
_CPUS = "say --cpus or --cpuset-cpus"
_NAMES = "names are those of the node's network; for one more, say --add-host"
_HEALTH = "the verdict is the exit status of the script; leave it out"
_IO = "phalanx does not limit block devices"
_MEMORY = "say --memory"

#: Refused by name, with the reason.
REFUSED = {
    "--cgroupns": "the container would see the node's control groups",
    "--cgroup-parent": "the engine chooses the control group",
    "--device-cgroup-rule": "devices are named one by one with --device",
    "--volumes-from": "other containers' volumes are not ours",
    "--volume-driver": "only paths of the node are mounted, with -v SOURCE:TARGET",
    "--restart": "phalanx decides what runs again",
    "--name": "phalanx names its containers",
    "--entrypoint": _STARTS,
    "--detach": _STARTS,
    "-d": _STARTS,
    "--interactive": _STARTS,
    "-i": _STARTS,
    "--tty": _STARTS,
    "-t": _STARTS,
    "--attach": _STARTS,
    "-a": _STARTS,
    "--detach-keys": _STARTS,
    "--sig-proxy": _STARTS,
    "--cidfile": "phalanx starts the container; phalanx events RUN names it",
    "--rm": "phalanx removes its containers",
    "--pull": "phalanx brings the image to every node",
    "--platform": "the image is the same on every node; name the one that fits them",
    "--disable-content-trust": "phalanx brings the image to every node, and shows its id",
    "--quiet": _STARTS,
    "-q": _STARTS,
    "--env-file": "a file of the login node is not on the nodes, and holds secrets; say -e NAME=VALUE in the "
    "card, or -e and --secret NAME=file:PATH on the command line",
    "--workdir": "steps run in the model's folder; cd in the script",
    "-w": "steps run in the model's folder; cd in the script",
    "--publish": _PORTS,
    "-p": _PORTS,
    "--publish-all": _PORTS,
    "-P": _PORTS,
    "--expose": _PORTS,
    "--link": _NAMES,
    "--network-alias": _NAMES,
    "--net-alias": _NAMES,
    "--dns": _NAMES,
    "--dns-option": _NAMES,
    "--dns-search": _NAMES,
    "--domainname": _NAMES,
    "--ip": _PORTS,
    "--ip6": _PORTS,
    "--link-local-ip": _PORTS,
    "--mac-address": _PORTS,
    "--sysctl": "with the node's network and ipc, as GPU workloads have them, these are the node's settings; "
    "its keeper sets them",
    "--label": "by its labels phalanx finds what is left of a run; leave it out",
    "-l": "by its labels phalanx finds what is left of a run; leave it out",
    "--label-file": "by its labels phalanx finds what is left of a run; leave it out",
    "--annotation": "no one here reads it; leave it out",
    "--log-driver": _OUTPUT,
    "--log-opt": _OUTPUT,
    "--oom-score-adj": "phalanx sets it: of a node whose memory runs out, the workload dies before the agent",
    "--oom-kill-disable": "a workload that cannot be ended for its memory takes the node with it",
    "--memory-swap": _SWAP,
    "--memory-swappiness": _SWAP,
    "--memory-reservation": _MEMORY,
    "--kernel-memory": _MEMORY,
    "--cpu-shares": _CPUS,
    "-c": _CPUS,
    "--cpu-period": _CPUS,
    "--cpu-quota": _CPUS,
    "--cpu-rt-period": _CPUS,
    "--cpu-rt-runtime": _CPUS,
    "--cpuset-mems": "say numactl --membind in the script, where each rank can have its own",
    "--stop-signal": "phalanx ends steps: TERM, then KILL",
    "--stop-timeout": "phalanx ends steps: TERM, then KILL",
    "--health-cmd": _HEALTH,
    "--health-interval": _HEALTH,
    "--health-retries": _HEALTH,
    "--health-timeout": _HEALTH,
    "--health-start-period": _HEALTH,
    "--no-healthcheck": _HEALTH,
    "--blkio-weight": _IO,
    "--blkio-weight-device": _IO,
    "--device-read-bps": _IO,
    "--device-write-bps": _IO,
    "--device-read-iops": _IO,
    "--device-write-iops": _IO,
    "--storage-opt": "the engine's storage is its keeper's to size",
    "--isolation": "it is for Windows; leave it out",
}
