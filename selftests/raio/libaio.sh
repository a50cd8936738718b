#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Unmodified libaio programs over raio: Debian's fio with its libaio engine
# and the replacement library. Data is verified by fio, and the module's
# counter must have grown by as many requests as fio says it did. Prints
# KTAP. Needs raioctl, the directory libaio with libaio.so.1, both beside
# this script, fio, and the file systems of scripts/guest-tests.

dir=$(dirname "$0")
nr=0

submitted() { "$dir/raioctl" stats --json | sed -n 's/.*"submitted": *\([0-9]*\).*/\1/p'; }

# fio's own count: completed reads and writes in its terse format.
check()
{
	name=$1
	shift
	nr=$((nr + 1))
	before=$(submitted)
	LD_LIBRARY_PATH=$dir/libaio fio --name="$name" --ioengine=libaio --randseed=1 \
		--output-format=json --output=/tmp/fio.json "$@" 2>/tmp/fio.err
	status=$?
	after=$(submitted)
	ios=$(awk -F'[:,]' '/"total_ios"/ { sum += $2 } END { print sum + 0 }' /tmp/fio.json)
	if [ $status -eq 0 ] && [ "$ios" -gt 0 ] && [ $((after - before)) -ge "$ios" ]; then
		echo "ok $nr $name"
	else
		sed 's/^/# /' /tmp/fio.err
		echo "# status $status, $ios requests by fio, $((after - before)) by raio"
		echo "not ok $nr $name"
		failed=1
	fi
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
rm -f /mnt/ext4/fio /mnt/xfs/fio /tmp/fio /tmp/fio.json /tmp/fio.err
exit "${failed:-0}"
