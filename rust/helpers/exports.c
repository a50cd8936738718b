// SPDX-License-Identifier: GPL-2.0
/*
 * What other modules may call (include/linux/raio.h). Rust can't export, and what becomes
 * part of Rust code (Kbuild) can't be exported either.
 */
#include <linux/export.h>
#include <linux/raio.h>

/* In rust/request.rs. */
bool raio_request_set_cancel(struct kiocb *iocb, raio_cancel_fn cancel);

bool raio_set_cancel_fn(struct kiocb *iocb, raio_cancel_fn cancel)
{
	return raio_request_set_cancel(iocb, cancel);
}
EXPORT_SYMBOL_GPL(raio_set_cancel_fn);
