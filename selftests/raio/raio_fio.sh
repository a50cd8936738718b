# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For the tests that run fio, sourced by them: runs it, and compares the
# requests that it says it did with the module's counters. Needs raioctl
# beside this script.
#
# shellcheck disable=SC2034 # for those who source this

dir=$(dirname "$0")
nr=0

# counter STATS NAME
counter() { echo "$1" | sed "s/.*\"$2\":\([0-9]*\).*/\1/"; }

# grown NAME: by how much that counter has grown while fio ran.
grown() { echo $(($(counter "$after" "$1") - $(counter "$before" "$1"))); }

# ios DIRECTION...: how many of these all jobs have done, verification included.
ios()
{
	for direction; do
		awk -F'[ ":,{]+' -v want="$direction" '
			/"(read|write|trim|sync)"/ { now = $2 }
			/"total_ios"/ && now == want { sum += $3 }
			END { print sum + 0 }' /tmp/fio.json
	done | awk '{ sum += $1 } END { print sum }'
}

# first NAME [OTHER]: the number of that name that comes first behind the other.
first()
{
	awk -F'[ ":,{]+' -v name="$1" -v behind="${2:-$1}" '
		$2 == behind { now = 1 }
		now && $2 == name { print $3; exit }' /tmp/fio.json
}

# run_fio OPTION...: sets status, and error to that of the first job.
run_fio()
{
	before=$("$dir/raioctl" stats --json)
	fio --randseed=1 --output-format=json --output=/tmp/fio.json "$@" 2>/tmp/fio.err
	status=$?
	after=$("$dir/raioctl" stats --json)
	error=$(first error)
}

# report NAME: the result of the command before.
report()
{
	if [ $? -eq 0 ]; then
		verdict=ok
	else
		verdict="not ok" failed=1
		sed 's/^/# /' /tmp/fio.err
		echo "# status $status, error $error, $(ios read write sync) requests by fio, $(grown submitted) by raio"
	fi
	nr=$((nr + 1))
	echo "$verdict $nr $1"
}

# finish: the end of the test.
finish()
{
	rm -f /tmp/fio.json /tmp/fio.err
	exit "${failed:-0}"
}
