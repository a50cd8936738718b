#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# stress-ng's aiol stressor, which makes the system calls itself, by syscall(3).

dir=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$dir/common.sh"

# job NAME DIRECTORY OPTION...
job()
{
	begin "$1"
	temp=$2
	shift 2
	expect "stress-ng fails" preloaded "$dir/usr/bin/stress-ng" --temp-path "$temp" --verify \
		--metrics-brief "$@" >/tmp/stress-ng 2>&1
	expect "stress-ng was not successful" grep -q 'successful run completed' /tmp/stress-ng
	told /tmp/stress-ng
	# The metrics' line: "stress-ng: metrc: [PID] aiol BOGO-OPS ..."
	finish -ge "$(awk '$4 == "aiol" { print $5 }' /tmp/stress-ng)"
}

plan 2
job aiol_ext4 /mnt/ext4 --aiol 2 --aiol-ops 2000
job aiol_xfs /mnt/xfs --aiol 4 --aiol-ops 2000 --aiol-requests 64
conclude
