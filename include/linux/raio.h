/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What raio offers to other modules: a way to have the requests cancelled
 * that they hold.
 *
 * A file's read_iter() or write_iter() that keeps a request, that is returns
 * -EIOCBQUEUED and ends it later by ki_complete(), may hold it for long. If
 * the request is raio's, the method can say how it is cancelled. raio then
 * asks when user space wants that, or when the context of the request ends.
 * There is no need to say that it is over: a request that has ended is not
 * asked.
 */
#ifndef _LINUX_RAIO_H
#define _LINUX_RAIO_H

#include <linux/types.h>

struct kiocb;

/**
 * typedef raio_cancel_fn - asks the holder of a request to cancel it
 * @iocb: the request
 *
 * Called once at most, in any context, interrupts possibly disabled, with
 * none of raio's locks held: it must not sleep. @iocb stays alive while this
 * runs, but the holder may be ending it on another processor.
 *
 * Return: true if the request is cancelled: it is then ended with -ECANCELED
 * by ki_complete(), here or later. False if it goes on as if not asked.
 */
typedef bool (*raio_cancel_fn)(struct kiocb *iocb);

/**
 * raio_set_cancel_fn() - say how a request is cancelled
 * @iocb: a request that the caller, a file's method, was called with
 * @cancel: how
 *
 * To be called in the method, before anything can end the request. A method
 * that has called this keeps the request and returns -EIOCBQUEUED.
 *
 * Return: true if @iocb is one of raio's and will be asked. False if not:
 * it can't be cancelled by raio.
 */
bool raio_set_cancel_fn(struct kiocb *iocb, raio_cancel_fn cancel);

#endif /* _LINUX_RAIO_H */
