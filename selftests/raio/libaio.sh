#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Unmodified libaio programs over raio: Debian's fio with its libaio engine
# and the replacement library. Data is verified by fio, and the module's
# counter must have grown by as many requests as fio says it did. Prints
# KTAP. Needs raioctl, the directory libaio with libaio.so.1, both beside
# this script, fio, and the file systems of scripts/guest-tests.

. "$(dirname "$0")/raio_fio.sh"

export LD_LIBRARY_PATH="$dir/libaio"

check()
{
	name=$1
	shift
	run_fio --name="$name" --ioengine=libaio "$@"
	[ $status -eq 0 ] && [ "$(ios read write)" -gt 0 ] &&
		[ "$(grown submitted)" -ge "$(ios read write)" ]
	report "$name"
}

echo "TAP version 13"
echo "1..6"
check ext4_direct_verify --filename=/mnt/ext4/fio --direct=1 --size=8m --bs=4k \
	--rw=randrw --iodepth=32 --verify=crc32c --verify_fatal=1
check xfs_direct_verify_mixed_sizes --filename=/mnt/xfs/fio --direct=1 --size=8m \
	--bsrange=4k-64k --rw=randwrite --iodepth=16 --verify=crc32c --verify_fatal=1
check tmpfs_buffered_verify --filename=/tmp/fio --size=8m --bs=4k --rw=write \
	--iodepth=8 --verify=md5 --verify_fatal=1
check null_blk_batches --filename=/dev/nullb0 --direct=1 --size=1g --bs=4k --rw=randread \
	--iodepth=64 --iodepth_batch_submit=32 --iodepth_batch_complete_max=32 --number_ios=5000
check null_blk_userspace_reap --filename=/dev/nullb0 --direct=1 --size=1g --bs=4k \
	--rw=randread --iodepth=32 --userspace_reap --number_ios=5000
check null_blk_jobs --filename=/dev/nullb0 --direct=1 --size=1g --bs=4k --rw=randread \
	--iodepth=16 --numjobs=4 --number_ios=1000 --group_reporting
rm -f /mnt/ext4/fio /mnt/xfs/fio /tmp/fio
finish
