#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# sysbench's file I/O in its asynchronous mode. A thread of it has one buffer
# for all its requests: what is in blocks can be verified only if it has one
# request at a time, of many it looks at the result.

dir=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$dir/common.sh"

files=8

fileio()
{
	linked "$dir/usr/bin/sysbench" fileio --file-num=$files --file-total-size=32M \
		--file-block-size=16K --file-io-mode=async "$@" >/tmp/sysbench 2>&1
}

# job NAME DIRECTORY FREQUENCY OPTION...: after that many requests, if it is not
# 0, it calls fsync(2) for each file. These are events too.
job()
{
	begin "$1"
	cd "$2" || exit
	freq=$3
	shift 3
	expect "sysbench fails" fileio --time=0 --events=2000 --file-fsync-freq="$freq" \
		--file-fsync-end=off "$@" run
	told /tmp/sysbench
	events=$(sed -n 's/.*total number of events: *//p' /tmp/sysbench)
	if [ "$freq" -gt 0 ]; then
		finish -ge $((events * freq / (freq + files)))
	else
		finish -eq "$events"
	fi
	cd /
}

verified() { job "$@" --validate=on --file-async-backlog=1; }
many() { job "$@" --file-async-backlog=64 --threads=2; }

for fs in ext4 xfs; do
	cd /mnt/$fs && fileio --validate=on prepare || exit
done

plan 7
verified verified_fsync /mnt/ext4 50 --file-test-mode=rndrw
verified verified_fdatasync /mnt/xfs 50 --file-test-mode=rndrw --file-fsync-mode=fdatasync
verified verified_direct /mnt/ext4 0 --file-test-mode=rndrw --file-extra-flags=direct
verified verified_seqrd /mnt/xfs 0 --file-test-mode=seqrd
many rndrw /mnt/ext4 0 --file-test-mode=rndrw
many rndrw_direct /mnt/xfs 0 --file-test-mode=rndrw --file-extra-flags=direct
many seqrewr_direct /mnt/ext4 0 --file-test-mode=seqrewr --file-extra-flags=direct
rm -f /mnt/*/test_file.*
conclude
