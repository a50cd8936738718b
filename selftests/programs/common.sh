# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the tests of whole programs share: each is one line of KTAP, good if all
# that was expected came true and the module has counted the program's requests.
# For busybox in the guest:
#
#	. "$dir/common.sh"
#	plan 1
#	begin name
#	expect "it fails" linked program argument
#	finish -eq 100
#	conclude
#
# Needs raioctl and the directory libaio with libaio.so.1 in $dir, where the
# script is. From here on the kernel's own AIO has no context to give, so that
# nobody uses it.

nr=0
failed=0
: "${dir:?}"
aio_max=$(cat /proc/sys/fs/aio-max-nr)
echo 0 >/proc/sys/fs/aio-max-nr

# How to run a program over raio: one that is linked to libaio, and any.
linked() { LD_LIBRARY_PATH=$dir/libaio:$dir/lib "$@"; }
preloaded() { LD_PRELOAD=$dir/libaio/libaio.so.1 LD_LIBRARY_PATH=$dir/lib "$@"; }

counter() { "$dir/raioctl" stats --json | sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p"; }

plan()
{
	echo "TAP version 13"
	echo "1..$1"
}

# begin NAME: a test
begin()
{
	name=$1 bad=
	nr=$((nr + 1))
	submitted=$(counter submitted) completed=$(counter completed)
}

# expect OTHERWISE COMMAND...: it succeeds; if not, that is what is said.
expect()
{
	otherwise=$1
	shift
	"$@" && return
	echo "# $otherwise"
	bad=1
}

# told FILE: what a program has said, if something went wrong.
told() { [ -z "$bad" ] || tail -n 40 "$1" | sed 's/^/# /'; }

# finish -eq|-ge REQUESTS: that many the program has made, or at least that many.
# Each has ended.
finish()
{
	set -- "$1" "${2:-0}"
	took=$(($(counter submitted) - submitted)) ended=$(($(counter completed) - completed))
	echo "# $name: $2 requests by the program, $took taken by raio, $ended completed"
	expect "no request" [ "$2" -gt 0 ]
	expect "not all over raio" [ "$took" "$1" "$2" ]
	expect "not all completed" [ "$took" -eq "$ended" ]
	if [ -z "$bad" ]; then
		echo "ok $nr $name"
	else
		echo "not ok $nr $name"
		failed=1
	fi
}

conclude()
{
	echo "$aio_max" >/proc/sys/fs/aio-max-nr
	exit "$failed"
}
