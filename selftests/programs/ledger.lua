-- SPDX-License-Identifier: GPL-2.0
--
-- For sysbench: transactions of which can be told afterwards whether they are
-- whole and which must be there. Each moves an amount from one account to
-- another and writes it into a journal. When the server has said that it is
-- committed, its key goes to the file /tmp/ledger.THREAD as well.

sysbench.cmdline.options = {
	accounts = {"Number of accounts, with 1000 each", 2000}
}

function prepare()
	local con = sysbench.sql.driver():connect()

	con:query("CREATE TABLE account (id INT PRIMARY KEY, balance BIGINT NOT NULL, " ..
		"pad CHAR(200) NOT NULL) ENGINE=InnoDB")
	con:query("CREATE TABLE journal (thread INT, nr INT, source INT NOT NULL, " ..
		"target INT NOT NULL, amount INT NOT NULL, PRIMARY KEY (thread, nr)) ENGINE=InnoDB")
	con:bulk_insert_init("INSERT INTO account VALUES")
	for id = 1, sysbench.opt.accounts do
		con:bulk_insert_next(string.format("(%d, 1000, '')", id))
	end
	con:bulk_insert_done()
end

function thread_init()
	con = sysbench.sql.driver():connect()
	file = assert(io.open("/tmp/ledger." .. sysbench.tid, "w"))
	nr = 0
end

local function add(id, amount)
	con:query(string.format("UPDATE account SET balance = balance + %d WHERE id = %d",
		amount, id))
end

function event()
	local source = sysbench.rand.uniform(1, sysbench.opt.accounts - 1)
	local target = sysbench.rand.uniform(source + 1, sysbench.opt.accounts)
	local amount = sysbench.rand.uniform(1, 100)

	nr = nr + 1
	con:query("BEGIN")
	-- Always the lower one first, so that there is no deadlock.
	add(source, -amount)
	add(target, amount)
	con:query(string.format("INSERT INTO journal VALUES (%d, %d, %d, %d, %d)",
		sysbench.tid, nr, source, target, amount))
	con:query("COMMIT")
	file:write(sysbench.tid, " ", nr, "\n")
	file:flush()
end
