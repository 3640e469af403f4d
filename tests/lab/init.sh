#!/bin/bash
# PID 1 of one lab node. It runs in namespaces of its own (mount, net, UTS, IPC, pid), so that one SIGKILL to it
# ends slurmd, dockerd, containers and agents together, as a power cut would. It gives the node what no two machines
# share (/tmp, /run, /var, /dev/shm, hostname) and leaves the rest of / as the shared filesystem.
#
# Environment: LAB_NODE LAB_NAME LAB_STATE LAB_FOLDER LAB_CGROUP LAB_CGROUPS LAB_DISK LAB_SLURM LAB_DOCKER
# LAB_ENGINE LAB_GPUS LAB_SHARE
set -eu
trap 'echo "init of $LAB_NODE: line $LINENO failed: $BASH_COMMAND" >&2' ERR

# The machine's /proc is still mounted here, so these are the machine's numbers for us: pid and start time.
read -r -a stat </proc/self/stat
[ -p "$LAB_FOLDER/orders" ] || mkfifo "$LAB_FOLDER/orders"
exec 3<>"$LAB_FOLDER/orders"

hostname "$LAB_NODE"

disk=$LAB_FOLDER/disk
if [ -n "$LAB_DISK" ]; then
  mount -o loop "$LAB_DISK" "$disk"
fi
mkdir -p "$disk/tmp" "$disk/var" "$disk/var-work" "$disk/var-tmp" "$disk/docker"
chmod 1777 "$disk/tmp" "$disk/var-tmp"

mount -t overlay overlay -o "lowerdir=/var,upperdir=$disk/var,workdir=$disk/var-work" /var
mkdir -p /var/lib/docker /var/spool/slurmd /var/tmp
mount --bind "$disk/docker" /var/lib/docker
# What the login node writes below its own /var would show through the overlay: caches are kept in /var/tmp.
mount --bind "$disk/var-tmp" /var/tmp

mount --bind "$LAB_STATE/etc/hosts" /etc/hosts
mount --bind "$LAB_STATE/etc/resolv.conf" /etc/resolv.conf
mount -t tmpfs -o mode=1777 tmpfs /dev/shm

# A fresh sysfs shows this node's interfaces but hides the cgroup trees, so they are carried over.
mkdir -p "$LAB_FOLDER/cgroup"
mount --rbind "$LAB_CGROUPS" "$LAB_FOLDER/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$LAB_FOLDER/cgroup" /sys/fs/cgroup
umount -l "$LAB_FOLDER/cgroup"

# /run is new at every boot: a stale docker.pid would stop the engine.
mkdir -p "$LAB_FOLDER/run"
mount -t tmpfs -o mode=755 tmpfs "$LAB_FOLDER/run"
mkdir -p "$LAB_FOLDER/run/lock" "$LAB_FOLDER/run/user/0" "$LAB_FOLDER/run/munge"
chmod 700 "$LAB_FOLDER/run/user/0"
[ -d /run/munge ] && mount --bind /run/munge "$LAB_FOLDER/run/munge"
mount --rbind "$LAB_FOLDER/run" /run
umount -l "$LAB_FOLDER/run"
for ((i = 0; i < LAB_GPUS; i++)); do
  mkdir -p /run/gpu
  mknod -m 666 "/run/gpu/gpu$i" c 1 3
done

# What must stay visible under /tmp goes into the private /tmp before that hides everything.
let_through() {
  case $1 in /tmp/*) ;; *) return 0 ;; esac
  local there=$disk/tmp/${1#/tmp/}
  if [ -d "$1" ]; then mkdir -p "$there"; else mkdir -p "${there%/*}" && touch "$there"; fi
  mount --rbind "$1" "$there"
}
for folder in etc log shared; do let_through "$LAB_STATE/$folder"; done
while IFS= read -r path; do
  if [ -n "$path" ]; then let_through "$path"; fi
done <<<"$LAB_SHARE"

mount -t proc proc /proc
echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/all/disable_ipv6 || true
# The namespace inherits the machine's choice; clusters run cubic, and figures should not depend on the machine.
echo cubic 2>/dev/null >/proc/sys/net/ipv4/tcp_congestion_control || true

# From here on we can be plugged in: the other side waits for this file, and we wait for its "go".
echo "${stat[0]} ${stat[21]}" >"$LAB_FOLDER/init.new"
mv "$LAB_FOLDER/init.new" "$LAB_FOLDER/init"
mount --rbind "$disk/tmp" /tmp
cd /

start_docker() {
  # /var/lib/docker lies on ext4 of its own; node and engine share one cgroup, so that freeze and accounting reach
  # the containers. No rule, proxy or masquerade: the namespace has nothing to protect and no iptables is needed.
  config=docker.json store=overlay2
  if [ -n "$LAB_ENGINE" ]; then
    config=containerd-store.json store=overlayfs PATH=$LAB_ENGINE/usr/sbin:$LAB_ENGINE/usr/bin:$PATH
  fi
  dockerd --config-file "$LAB_STATE/etc/$config" --host unix:///run/docker.sock --data-root /var/lib/docker \
    --exec-root /run/docker --pidfile /run/docker.pid --storage-driver "$store" \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$LAB_CGROUP" \
    --bip 172.30.0.1/24 --iptables=false --ip6tables=false --ip-masq=false --userland-proxy=false \
    --insecure-registry 10.77.0.0/16 --log-level warn \
    </dev/null >>"$LAB_STATE/log/$LAB_NODE.docker.log" 2>&1 3<&- &
}

start_slurmd() {
  SLURM_CONF=$LAB_STATE/etc/slurm.conf slurmd -D -N "$LAB_NODE" \
    </dev/null >>"$LAB_STATE/log/$LAB_NODE.slurmd.log" 2>&1 3<&- &
}

obey() {
  while :; do
    # A read with a limit is a sleep without a child process.
    read -r -t 86400 -u 3 order || continue
    # In a subshell that ends: the daemon becomes a child of init, which reaps it.
    case $order in
    go)
      [ "$LAB_DOCKER" = 1 ] && (start_docker)
      [ "$LAB_SLURM" = 1 ] && (start_slurmd)
      ;;
    docker) (start_docker) ;;
    slurmd) (start_slurmd) ;;
    esac
  done
}

set +e
trap - ERR
obey &
# bash reaps orphans in `wait`, and nowhere else: while it reads, every orphan of the node would stay a zombie.
while :; do
  wait
  sleep 1
done
