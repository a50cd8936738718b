#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# MariaDB, whose InnoDB has its files read and written by native AIO: system
# tables are made, sysbench's OLTP load is run, the server is killed in the
# middle of it and recovers. With a buffer pool that is smaller than the data.
#
# shellcheck disable=SC2317 # functions are called by expect

dir=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$dir/common.sh"

data=/mnt/ext4/mariadb
socket=/tmp/mariadb.socket
log=/tmp/mariadb.log
pid=/tmp/mariadb.pid
threads=4
commits=200		# before the kill

# mariadbd METHOD OPTION...: with that innodb_flush_method. It reads events by
# syscall(3), so that LD_PRELOAD it has to be.
mariadbd()
{
	method=$1
	shift
	preloaded "$dir/usr/sbin/mariadbd" --no-defaults --user=root --basedir="$dir/usr" \
		--datadir=$data --tmpdir=/tmp --socket=$socket --pid-file=$pid \
		--skip-networking --skip-grant-tables --innodb-use-native-aio=1 \
		--innodb-linux-aio=aio --innodb-flush-method="$method" \
		--innodb-buffer-pool-size=8M --innodb-log-file-size=16M "$@" >"$log" 2>&1
}

sql() { linked "$dir/usr/bin/mariadb" --no-defaults --socket=$socket -N -B -e "$1"; }
status() { sql "SHOW GLOBAL STATUS LIKE '$1'" | cut -f 2; }

# start METHOD: a server, and waits until it answers or is gone.
start()
{
	mariadbd "$1" &
	server=$!
	until sql 'SELECT 1' >/dev/null 2>&1; do
		kill -0 "$server" 2>/dev/null || return
		sleep 1
	done
}

stop() { sql SHUTDOWN && wait "$server"; }

# It is libaio's implementation, and stayed so.
native()
{
	grep -q 'Using Linux native AIO' "$log" &&
		! grep -i -e 'falling back' -e 'io_setup' -e 'native AIO failed' "$log" &&
		[ "$(sql 'SELECT @@innodb_use_native_aio')" = 1 ]
}

# bench SCRIPT OPTION... COMMAND
bench()
{
	script=$1
	shift
	(cd "$dir/usr/share/sysbench" &&
		linked "$dir/usr/bin/sysbench" "$script" --db-driver=mysql --mysql-socket=$socket \
			--mysql-user=root --mysql-db=test --threads=$threads "$@")
}
oltp() { bench oltp_read_write.lua --tables=4 --table-size=5000 --time=0 "$@"; }
ledger() { bench "$dir/ledger.lua" --time=0 "$@"; }

# none QUERY: it counts no row.
none() { [ "$(sql "SELECT COUNT(*) FROM $1")" = 0 ]; }

checked()
{
	tables=$(sql 'SHOW TABLES IN test' | sed 's/.*/test.&/' | paste -s -d,)
	sql "CHECK TABLE $tables EXTENDED" >/tmp/check && [ -s /tmp/check ] &&
		! grep -v 'check	status	OK$' /tmp/check
}

# Committed is what the client was told, and no more than was under way.
complete()
{
	sql "SELECT CONCAT(thread, ' ', nr) FROM test.journal" >/tmp/journal
	cat /tmp/ledger.* >/tmp/told
	awk -v most="$threads" '
		NR == FNR { told[$0]; n++; next }
		$0 in told { delete told[$0]; next }
		{ more++ }
		END {
			for (key in told)
				lost++
			print "# " n " transactions told of, " lost + 0 " lost, " more + 0 " more"
			exit lost || more > most
		}' /tmp/told /tmp/journal
}

install()
{
	begin install
	mkdir $data
	# A statement has a line of its own.
	(
		printf '%s;\n' 'CREATE DATABASE mysql' 'CREATE DATABASE test' 'USE mysql'
		cd "$dir/usr/share/mysql" &&
			cat mysql_system_tables.sql mysql_performance_tables.sql mysql_system_tables_data.sql
	) >/tmp/install.sql
	expect "no system tables" mariadbd O_DIRECT --bootstrap </tmp/install.sql
	told "$log"
	finish -ge 1
}

# oltp_load METHOD
oltp_load()
{
	begin "oltp_$1"
	start "$1"
	expect "not by native AIO" native
	expect "no tables" oltp prepare >/tmp/oltp 2>&1
	expect "sysbench fails" oltp --events=200 run >/tmp/oltp 2>&1
	told /tmp/oltp
	flushed=$(status Innodb_buffer_pool_pages_flushed)
	expect "tables are bad" checked
	expect "tables stay" oltp cleanup >/tmp/oltp
	expect "the server doesn't stop" stop
	told "$log"
	finish -ge "$flushed"
}

# crash METHOD: the server is killed when some transactions are committed.
crash()
{
	begin "crash_$1"
	start "$1"
	expect "no tables" oltp prepare >/tmp/oltp 2>&1
	expect "no accounts" ledger prepare >/tmp/ledger 2>&1
	rm -f /tmp/ledger.*
	oltp --events=0 run >/tmp/oltp 2>&1 &
	oltp=$!
	ledger --events=0 run >/tmp/ledger 2>&1 &
	ledger=$!
	until [ "$(cat /tmp/ledger.* 2>/dev/null | wc -l)" -ge $commits ]; do
		kill -0 $ledger 2>/dev/null || break
		sleep 1
	done
	expect "the load was at an end" kill -0 $oltp $ledger
	kill -9 "$(cat $pid)"
	wait "$server" $oltp $ledger
	told /tmp/ledger

	start "$1"
	expect "not by native AIO" native
	expect "nothing to recover" grep -q 'Starting crash recovery' "$log"
	expect "tables are bad" checked
	expect "money was lost" none '(SELECT SUM(balance) s, COUNT(*) c FROM test.account) a WHERE s <> 1000 * c'
	expect "balances don't follow from the journal" none 'test.account LEFT JOIN
		(SELECT id, SUM(amount) moved FROM (SELECT source id, -amount amount FROM test.journal
			UNION ALL SELECT target, amount FROM test.journal) j GROUP BY id) m USING (id)
		WHERE balance <> 1000 + COALESCE(moved, 0)'
	expect "the journal is not what was committed" complete
	expect "tables stay" sql 'DROP DATABASE test; CREATE DATABASE test'
	flushed=$(status Innodb_buffer_pool_pages_flushed)
	expect "the server doesn't stop" stop
	told "$log"
	finish -ge "$flushed"
}

plan 5
install
for method in O_DIRECT fsync; do
	oltp_load $method
	crash $method
done
rm -rf $data
conclude
