#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# fio with raio's own engine (tools/fio/raio.c). Data is verified by fio, and
# the module must have counted exactly the requests that fio says it did.
# Prints KTAP. Needs raioctl and the directory fio with raio.so and raio.fio,
# both beside this script, fio, the test devices, and the file systems and
# null_blk of scripts/guest-tests.

. "$(dirname "$0")/raio_fio.sh"

echo "TAP version 13"
engine=$dir/fio/raio.so
if [ ! -e "$engine" ]; then
	echo "1..0 # SKIP no $engine"
	exit 4
fi

ctl=/dev/raio_test_ctl

run_raio() { run_fio --name=raio --ioengine="external:$engine" "$@"; }

# all_over_raio [EXTRA]: and EXTRA requests that fio doesn't tell of.
all_over_raio()
{
	[ $status -eq 0 ] && [ "$(ios read write)" -gt 0 ] &&
		[ "$(grown submitted)" -eq $(($(ios read write sync) + ${1:-0})) ] &&
		[ "$(grown completed)" -eq "$(grown submitted)" ] && [ "$(grown refused)" -eq 0 ]
}

# all_direct: each was sent to the disk without asking its file.
all_direct() { all_over_raio && [ "$(grown direct)" -eq "$(ios read write)" ]; }

# all_polled: the end of each was asked for there.
all_polled()
{
	all_direct && [ "$(grown iopolled)" -eq "$(ios read write)" ] && [ "$(grown reaped)" -eq 0 ]
}

# none_direct
none_direct() { all_over_raio && [ "$(grown direct)" -eq 0 ]; }

# fails_with ERRNO
fails_with() { [ "$status" -ne 0 ] && [ "$error" = "$1" ]; }

# tell COMMAND: to the test devices. Some wait; none for ever.
tell() { timeout 100 sh -c "echo $* >$ctl"; }

file=/mnt/ext4/fio
verify="--filename=$file --size=4m --direct=1 --rw=randrw --iodepth=32 --verify=crc32c --verify_fatal=1"
nullb="--filename=/dev/nullb0 --size=1g --direct=1 --rw=randread --norandommap --number_ios=5000 --iodepth=32"
batch="--iodepth_batch_submit=16 --iodepth_batch_complete_max=16"
jobs="--directory=/mnt/ext4 --size=1m --direct=1 --rw=randrw --iodepth=16 --verify=crc32c --verify_fatal=1 --numjobs=4"
files="--directory=/mnt/ext4 --nrfiles=8 --openfiles=2 --size=2m --rw=randrw --iodepth=16 --verify=crc32c --verify_fatal=1"
ondisk="--filename=/dev/raio-fio --size=4m --direct=1 --rw=randrw --bsrange=512-16k --iodepth=32 --verify=crc32c --verify_fatal=1"
large="--filename=/dev/raio-fio --size=4m --direct=1 --rw=randrw --bs=256k --iodepth=8 --verify=crc32c --verify_fatal=1"
registered="--fixedbufs --registerfiles"
chardev="--filename=/dev/raio_test0 --size=16k --rw=read --iodepth=4 --iodepth_batch_submit=4"

# A disk that can trim, can be polled, and can't write its second half.
disk=/sys/kernel/config/nullb/raio-fio
mkdir $disk
for set in size=8 memory_backed=1 discard=1 poll_queues=1 badblocks=+8192-16383 power=1; do
	echo "${set#*=}" >"$disk/${set%%=*}"
done

echo "1..31"

# shellcheck disable=SC2086 # lists
{
run_raio $verify
all_over_raio && [ "$(grown reaped)" -eq "$(grown submitted)" ]
report ext4_verify

run_raio $verify --userspace_reap
all_over_raio && [ "$(grown reaped)" -lt "$(grown submitted)" ]
report ext4_verify_userspace_reap

run_raio $nullb $batch
all_over_raio && [ "$(grown reaped)" -eq 5000 ]
report null_blk_batches

run_raio $nullb $batch --userspace_reap
all_over_raio
report null_blk_batches_userspace_reap

run_raio $nullb --userspace_reap --iodepth_batch_complete_min=0
all_over_raio && [ "$(grown reaped)" -eq 0 ]
report null_blk_polling_userspace_reap

run_raio $nullb --iodepth_batch_complete_min=0
all_over_raio && [ "$(grown reaped)" -eq 5000 ]
report null_blk_polling

run_raio --filename=$file --size=2m --rw=randwrite --fsync=8 --iodepth=16 --verify=crc32c --verify_fatal=1
all_over_raio && [ "$(ios sync)" -ge 64 ]
report ext4_buffered_fsync_verify

# fio counts no fdatasync. There is one after every 8 of 256 writes, but for the last.
run_raio --filename=$file --size=1m --rw=write --fdatasync=8 --direct=1
all_over_raio 31
report ext4_fdatasync

# These two are no requests.
run_raio --filename=$file --size=1m --rw=write --sync_file_range=write:8 --iodepth=4
all_over_raio
report ext4_sync_file_range

run_raio --filename=/dev/raio-fio --size=1m --direct=1 --rw=trimwrite --iodepth=8
all_over_raio && [ "$(ios trim)" -eq 256 ]
report null_blk_trim

run_raio $jobs
all_over_raio && [ "$(grown setups)" -eq 4 ]
report processes

run_raio $jobs --thread=1
all_over_raio && [ "$(grown setups)" -eq 4 ]
report threads

ENGINE=$engine DATA=$file run_fio "$dir/fio/raio.fio"
all_over_raio && [ "$(grown setups)" -eq 5 ]
report job_file

# What is so large goes the direct path only if it is registered, by whatever the disk is named.
run_raio $large
none_direct
ordinary=$?
run_raio $large --fixedbufs
all_direct && [ $ordinary -eq 0 ]
report disk_verify_fixedbufs

run_raio $ondisk --registerfiles
all_over_raio
report disk_verify_registerfiles

run_raio $large $registered
all_direct
report disk_verify_large_registered

run_raio $ondisk $registered
all_direct && [ "$(grown reaped)" -eq "$(grown submitted)" ]
report disk_verify_registered

run_raio $ondisk $registered $batch --userspace_reap
all_direct && [ "$(grown reaped)" -eq 0 ]
report disk_verify_registered_batches_userspace_reap

run_raio $nullb $registered $batch --iodepth_batch_complete_min=16 --userspace_reap
all_direct && [ "$(grown reaped)" -eq 0 ]
report null_blk_registered_batches_userspace_reap

run_raio $nullb $registered --userspace_reap --iodepth_batch_complete_min=0
all_direct && [ "$(grown reaped)" -eq 0 ]
report null_blk_registered_polling_userspace_reap

run_raio $verify $registered --userspace_reap --fsync=16
none_direct
report ext4_verify_registered

# Which are registered when they are opened, and not when they are closed.
run_raio $files $registered
none_direct
report files_registered

run_raio $ondisk $registered --hipri
all_polled
report disk_verify_polled

run_raio $nullb $registered $batch --iodepth_batch_complete_min=16 --hipri
all_polled
report null_blk_polled_batches

# The error comes with the fsync, after the write to the page cache.
run_raio --filename=/dev/raio-fio --offset=4m --size=8k --rw=write --fsync=1
fails_with 5
report fsync_error

tell c0 nowait all
run_raio $chardev && all_over_raio
ordinary=$?
run_raio $chardev --nowait=1
fails_with 11 && [ $ordinary -eq 0 ]
report nowait
tell c0 reset

# One file takes its time; the other refuses what must not wait, and the job goes on.
tell c0 mode timer 2000000
run_raio --filename=/dev/raio_test0:/sys/kernel/uevent_seqnum --file_service_type=roundrobin \
	--filesize=4k --bs=512 --rw=read --iodepth=4 --iodepth_batch_submit=4 --nowait=1 \
	--continue_on_error=io --ignore_error=95 --time_based --runtime=1
[ $status -eq 0 ] && [ "$(grown refused)" -gt 0 ] && [ "$(grown submitted)" -gt 4 ] &&
	[ "$(grown completed)" -eq "$(grown submitted)" ] &&
	[ "$(grown reaped)" -eq "$(grown submitted)" ]
report one_file_refuses
tell c0 reset

# What has moved less is no more.
tell c0 short all 1024
run_raio $chardev
all_over_raio && [ "$(first short_ios)" -eq 4 ]
report short_reads
tell c0 reset

# The time that a call waits is that of its requests.
tell c0 mode timer 2000000
run_raio $chardev --userspace_reap
all_over_raio && [ "$(first min clat_ns)" -ge 2000000 ]
report wait_is_latency
tell c0 reset

# One fails, and fio cancels the others; without that, the reset ends them.
tell c0 mode hang
tell c0 cancel yes
(tell c0 wait held 4 && tell c0 fail 1 5 && tell c0 wait ended 4; tell c0 reset) &
run_raio $chardev
wait
fails_with 5 && [ "$(grown submitted)" -eq 4 ] && [ "$(grown cancelled)" -eq 3 ]
report cancel

ln -s /dev/raio /tmp/raio
run_raio $nullb --device=/tmp/raio && all_over_raio
ordinary=$?
run_raio $nullb --device=/dev/null
fails_with 25 && [ $ordinary -eq 0 ]
report device
}

rm -f $file /mnt/ext4/raio.* /tmp/raio
echo 0 >$disk/power
rmdir $disk
finish
