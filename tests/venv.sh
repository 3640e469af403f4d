#!/bin/sh
# Make a virtual environment: venv.sh PYTHON DIRECTORY. Debian and Ubuntu ship python3 without ensurepip;
# as root the missing package is installed, else its name is said.
set -eu
python=$1
directory=$2

if ! command -v "$python" >/dev/null; then
	echo "cannot make $directory: no $python on this machine; install Python 3.11 or newer" >&2
	exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
	echo "cannot make $directory: $("$python" --version) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2
	exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		echo "cannot make $directory: $python comes without venv; as root: apt-get install python3-venv" >&2
		exit 1
	fi
	echo "installing python3-venv"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
fi
"$python" -m venv "$directory"
