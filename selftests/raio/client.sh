#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A program built for libaio (tools/libaio/tests/client.c), which checks what it
# gets, over the replacement library; in a 32-bit set also as client-time64, whose
# time_t is of 64 bits and which calls functions of its own. Each case has to
# make contexts of raio's. Prints KTAP. Needs these, raioctl, and the directory
# libaio with libaio.so.1 beside this script.

dir=$(dirname "$0")
nr=0

setups() { "$dir/raioctl" stats --json | sed -n 's/.*"setups": *\([0-9]*\).*/\1/p'; }

# check PROGRAM CASE...
check()
{
	program=$1
	shift
	for name; do
		nr=$((nr + 1))
		before=$(setups)
		LD_LIBRARY_PATH=$dir/libaio timeout 60 "$dir/$program" "$name" raio 2>/tmp/client.err
		status=$?
		made=$(($(setups) - before))
		if [ $status -eq 0 ] && [ $made -gt 0 ]; then
			echo "ok $nr $program.$name"
		else
			sed 's/^/# /' /tmp/client.err
			echo "# status $status, $made contexts"
			echo "not ok $nr $program.$name"
			failed=1
		fi
	done
}

echo "TAP version 13"
if [ -e "$dir/client-time64" ]; then
	echo "1..8"
	check client-time64 rw forks closes
else
	echo "1..5"
fi
check client rw old forks closes direct
rm -f /tmp/client.err
exit "${failed:-0}"
