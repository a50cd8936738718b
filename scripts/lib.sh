# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What all scripts share: where things are, how to talk, how to run long
# work, and how to be safe when two runs meet. Source it:
#
#	. "$(dirname "$0")/lib.sh"
#
# Messages go to stderr; stdout belongs to a script's result.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${RAIO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/raio}
logs=$cache/log		# of steps
brief=			# whether a step that went well says nothing in the end
jobs=$(nproc)

# rustup's programs, also where no login shell has put them into PATH.
rustup_bin=${CARGO_HOME:-$HOME/.cargo}/bin
if [[ -x $rustup_bin/rustc && :$PATH: != *:$rustup_bin:* ]]; then
	PATH=$rustup_bin:$PATH
fi
mkdir -p "$cache"/{lock,log}

say() { printf '%s\n' "$*" >&2; }

die()
{
	say "${0##*/}: $*"
	exit 1
}

# usage: prints the header comment of the running script.
usage() { sed -n '3,/^[^#]/{/^#/!q;s/^#\( \|\t\|$\)//p}' "$0"; }

elapsed() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# key_of WORD...: a short key for what the words say.
key_of() { printf '%s\n' "$@" | sha256sum | cut -c1-16; }

# at_least VERSION MINIMUM
at_least() { printf '%s\n%s\n' "$2" "$1" | sort -CV; }

# lock NAME: waits for the lock and holds it until the script ends.
lock()
{
	local fd

	exec {fd}>"$cache/lock/$1"
	flock -n "$fd" && return
	say "${0##*/}: another run is busy with $1, waiting for it"
	flock "$fd"
}

# Prints how far a step is, until its script ends or kills it: on a
# terminal one line that moves, elsewhere a line every half minute.
progress()
{
	local title=$1 log=$2 start=$SECONDS next=30 line format='%s  %s  %.50s\n'

	[[ ! -t 2 ]] || { format='\r\e[K%s  %s  %.50s'; next=0; }
	# The sleep must not keep a pipe open when it outlives us.
	while sleep 1 >&- 2>&- && kill -0 $$ 2>/dev/null; do
		((SECONDS - start >= next)) || continue
		[[ -t 2 ]] || ((next += 30))
		line=$(tail -c 300 "$log" | tr '\r\t' '\n ' | tail -n 1)
		# shellcheck disable=SC2059
		printf "$format" "$title" "$(elapsed $((SECONDS - start)))" "$line" >&2
	done
}

# step NAME TITLE COMMAND...: runs a long command with its output in
# $logs/NAME.log, shows progress, and when the command fails prints
# the log's end and gives its status back. A step of less than a second
# says nothing.
step()
{
	local log=$logs/$1.log title=$2 start=$SECONDS status=0 printer

	shift 2
	: >"$log"
	# Not in our stdout, or $(...) around us would wait for its sleep.
	progress "$title" "$log" >/dev/null &
	printer=$!
	"$@" >"$log" 2>&1 </dev/null || status=$?
	kill "$printer" 2>/dev/null || :
	wait "$printer" 2>/dev/null || :
	[[ ! -t 2 ]] || printf '\r\033[K' >&2
	if ((status)); then
		tail -n 30 "$log" >&2
		say "$title: failed with status $status, the whole log is $log"
	elif [[ -z $brief ]] && ((SECONDS > start)); then
		say "$title  $(elapsed $((SECONDS - start)))"
	fi
	return $status
}

# tmpdir: makes $tmp, which goes away with the script.
tmpdir()
{
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/raio.XXXXXX")
	# shellcheck disable=SC2154 # assigned above
	# Not in a subshell, which has the trap until it has reset it.
	trap '((BASHPID != $$)) || rm -rf "$tmp"' EXIT
}

# load_env: what scripts/prepare found or made, see there.
load_env() { eval "$("$top/scripts/prepare" --env)"; }

# kmake FLAVOUR ARG...: make with the tool chain of that kernel.
kmake()
{
	local flavour=$1

	shift
	case $flavour in
	fast) set -- BINDGEN="$BINDGEN" "$@" ;;
	debug | inline) set -- BINDGEN="$BINDGEN" LLVM="$LLVM_SUFFIX" "$@" ;;
	esac
	make -j"$jobs" "$@"
}

# kvm_works: really runs a processor, which a /dev/kvm does not promise: a
# boot sector that makes QEMU exit with status 33. Asked once per boot. Without
# nested page tables it is not asked: KVM then has to emulate what a kernel
# writes to pages that it takes for page tables, and can't emulate cmpxchg16b.
kvm_works()
{
	local answer sector status

	grep -q -m 1 -w -e ept -e npt /proc/cpuinfo || return
	answer=$cache/kvm-$(</proc/sys/kernel/random/boot_id)
	if [[ ! -e $answer ]]; then
		rm -f "$cache"/kvm-*
		sector=$(mktemp)
		{
			printf '\xb0\x10\xba\x01\x05\xee\xf4' # mov al,16; mov dx,0x501; out dx,al; hlt
			head -c 503 /dev/zero
			printf '\x55\xaa'
		} >"$sector"
		status=$(
			exec 2>/dev/null
			timeout 5 qemu-system-x86_64 -accel kvm -cpu host -m 16 -nodefaults \
				-display none -device isa-debug-exit,iobase=0x501,iosize=1 \
				-drive "file=$sector,format=raw,if=ide" </dev/null >/dev/null
			echo $?
		) || :
		rm -f "$sector"
		[[ $status == 33 ]] && echo yes >"$answer" || echo no >"$answer"
	fi
	grep -q yes "$answer"
}

# take_files DIR: prints what a guest prints, but what follows on a line
# "### file NAME" goes to that file in DIR.
take_files()
{
	awk -v out="$1" '
		/^### file / { file = out "/" $3; next }
		file { print >file; next }
		{ print; fflush() }'
}

# What the selftests need of tools/: the library under test and a program for
# it, the counters, the crate's example and the differential test, which are
# selftests too.
build_tools()
{
	local release=tools/target/release

	# What was built before must not be tested when one of these fails.
	make tools &&
		cargo build --release --manifest-path tools/Cargo.toml --example crate &&
		mkdir -p out/selftests/libaio &&
		cp -P "$release"/libaio.so.1* out/selftests/libaio/ &&
		cp "$release"/{raioctl,raio-stress,raio-differential,examples/crate} out/selftests/ &&
		cc -Wall -O2 -o out/selftests/client tools/libaio/tests/client.c out/selftests/libaio/libaio.so.1
}

# The engine that is loaded into the guest's fio, with its job file.
build_fio_engine()
{
	scripts/fio-engine &&
		mkdir -p out/selftests/fio &&
		cp out/fio/raio.so tools/fio/raio.fio out/selftests/fio/
}

# What the guest of the selftests has: two disks, which can be polled if there is
# more than one processor, null_blk, and for migrate two nodes, half of the memory
# of which can be offlined, if the kernel itself hasn't used it. With 1G the debug
# kernel leaves no whole block.
# shellcheck disable=SC2034 # for those who source this
selftests_guest=(--nodes 2 --mem 1536M --disk 512M --disk 512M
	--append "null_blk.nr_devices=1 virtio_blk.poll_queues=1 kernelcore=50%")

# need_flavour WORD: fails unless it names one of our kernels.
need_flavour()
{
	[[ ${1:-} =~ ^(fast|debug|inline)$ ]] || die "which kernel: fast, debug or inline?"
}
