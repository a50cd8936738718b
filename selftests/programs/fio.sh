#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# fio's engine libaio, with data that it verifies.

dir=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$dir/common.sh"

# fio_job NAME OPTION...: fio with its engine libaio, as a test of its own.
fio_job()
{
	begin "$1"
	shift
	expect "fio fails" linked fio --name="$name" --ioengine=libaio --randseed=1 \
		--output-format=json --output=/tmp/fio.json "$@" 2>/tmp/fio.err
	told /tmp/fio.err
	# Reads and writes: fio calls fsync(2) itself.
	finish -eq "$(awk -F'[:,]' '
		/"sync" :/ { sync = 1 }
		/"total_ios"/ { sum += sync ? 0 : $2; sync = 0 }
		END { print sum + 0 }' /tmp/fio.json)"
	rm -f /tmp/fio.json /tmp/fio.err
}

verified() { fio_job "$@" --verify=crc32c --verify_fatal=1; }

plan 9
verified random --filename=/mnt/ext4/fio --direct=1 --size=16m --bs=4k --rw=randrw \
	--iodepth=64 --iodepth_batch_submit=16 --iodepth_batch_complete_max=16
verified sequential --filename=/mnt/xfs/fio --direct=1 --size=64m --bs=64k --rw=write --iodepth=16
verified mixed_sizes --filename=/mnt/xfs/fio --direct=1 --size=16m --bsrange=512-64k \
	--rw=randrw --iodepth=32
verified mixed_sizes_buffered --filename=/mnt/ext4/fio --size=16m --bsrange=1-64k \
	--bs_unaligned --rw=randrw --iodepth=32
verified fsync --filename=/mnt/ext4/fio --size=4m --bs=4k --rw=randwrite --iodepth=8 --fsync=32
verified userspace_reap --filename=/mnt/ext4/fio --direct=1 --size=16m --bs=4k --rw=randrw \
	--iodepth=32 --userspace_reap
verified processes --directory=/mnt/ext4 --direct=1 --size=8m --bs=4k --rw=randrw \
	--iodepth=16 --numjobs=4
verified threads --directory=/mnt/xfs --direct=1 --size=8m --bs=4k --rw=randrw \
	--iodepth=16 --numjobs=4 --thread
fio_job priorities --filename=/dev/nullb0 --direct=1 --size=1g --bs=4k --rw=randread \
	--iodepth=32 --number_ios=10000 --cmdprio_percentage=50 --cmdprio_class=2 --cmdprio=3
rm -f /mnt/*/fio /mnt/*/processes.* /mnt/*/threads.*
conclude
