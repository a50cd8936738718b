#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds libaio.so.1 in target/release, and beside it a link by the name
# under which Debian 13 has the library. The linker is called here since rustc
# gives it a version script of its own for a cdylib, which knows no versions.
#
# CARGO, CARGO_BUILD_TARGET, CARGO_TARGET_DIR and CC are heeded; LDFLAGS is
# added at the end.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${CARGO_TARGET_DIR:-$here/../target}/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}release

# shellcheck disable=SC2086 # CARGO is a list
(cd "$here" && ${CARGO:-cargo} build --quiet --locked --release -p raio-libaio)

tmp=$out/libaio.so.1.$$
trap 'rm -f "$tmp"' EXIT
# nodelete: the process keeps our fork handler. -static-libgcc: nothing
# is needed but libc, as for the real one.
# shellcheck disable=SC2086 # LDFLAGS is a list
${CC:-cc} -shared -o "$tmp" -static-libgcc \
	-Wl,-soname,libaio.so.1 -Wl,--version-script="$here/libaio.map" \
	-Wl,--whole-archive "$out/libraio_libaio.a" -Wl,--no-whole-archive \
	-Wl,--gc-sections -Wl,--as-needed -Wl,-z,defs -Wl,-z,now -Wl,-z,relro \
	-Wl,-z,nodelete -Wl,-s ${LDFLAGS:-}
mv "$tmp" "$out/libaio.so.1"
ln -sf libaio.so.1 "$out/libaio.so.1t64"
