#!/bin/sh
# What the nas, browser, docker and lab tiers need beside Python. As root on Debian or Ubuntu the missing packages are
# installed (nothing is asked of the archive when nothing is missing); else it is said what cannot run and why.
set -eu
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

#: command:package that brings it
needs='
slurmctld:slurm-wlm slurmd:slurm-wlm srun:slurm-wlm sacct:slurm-wlm munged:munge
dockerd:docker.io docker:docker.io containerd:containerd runc:runc
ip:iproute2 tc:iproute2 iptables:iptables debootstrap:debootstrap curl:curl
unshare:util-linux nsenter:util-linux setpriv:util-linux setsid:util-linux
mount:mount losetup:mount mkfs.ext4:e2fsprogs ps:procps
busybox:busybox-static docker-registry:docker-registry
ssh:openssh-client rsync:rsync
chromium:chromium
'

missing=
packages=
for need in $needs; do
	command=${need%%:*}
	package=${need#*:}
	if ! command -v "$command" >/dev/null 2>&1; then
		missing="$missing $command"
		case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
	fi
done

if [ "$(id -u)" -ne 0 ]; then
	case "$missing " in *" chromium "*) echo "tier browser cannot run: no chromium (as root: apt-get install chromium)" ;; esac
	echo "tiers docker and lab cannot run: they need root for namespaces, engines and Slurm (make test as root)"
	exit 0
fi
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "some tiers cannot run: missing$missing, and this is not a Debian to install them on"
	exit 0
fi
echo "installing$packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt-get install -qq -y --no-install-recommends "$@" >>"$log" 2>&1; }
if apt-get update -qq >"$log" 2>&1; then
	install $packages && exit 0
	# One name that an archive does not have stops all of them, and Ubuntu has Chromium only as a snap.
	case "$packages" in *" chromium")
		echo "tier browser cannot run: chromium cannot be installed from this archive"
		packages=${packages% chromium}
		[ -z "$packages" ] || install $packages && exit 0
		;;
	esac
fi
tail -n 20 "$log" >&2
echo "cannot install$packages (see above); the tiers that need them say so at the end" >&2
