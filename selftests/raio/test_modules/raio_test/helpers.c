// SPDX-License-Identifier: GPL-2.0
/*
 * C bodies for what Rust can't call: static inlines and macros. helpers.rs
 * says what each is for. No locks.
 */
#include <linux/aio.h>
#include <linux/blk-integrity.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/uio.h>

#include <linux/raio.h>

typedef void (*raio_test_segment_fn)(void *arg, void *addr, size_t len);

void raio_test_file_set_nowait(struct file *file);
bool raio_test_kiocb_nowait(const struct kiocb *iocb);
u16 raio_test_kiocb_ioprio(const struct kiocb *iocb);
bool raio_test_kiocb_sync(const struct kiocb *iocb);
void raio_test_kiocb_complete(struct kiocb *iocb, long result);
void raio_test_offer_cancel(struct kiocb *iocb, raio_cancel_fn cancel,
			    kiocb_cancel_fn *aio_cancel);
bool raio_test_interrupting(void);
bool raio_test_iter_is_user(const struct iov_iter *iter);
struct gendisk *raio_test_add_disk(struct blk_mq_tag_set *set, void *queue_data,
				   const char *name, u64 sectors, bool protects);
bool raio_test_rq_nowait(const struct request *rq);
u16 raio_test_rq_ioprio(struct request *rq);
bool raio_test_rq_protected(struct request *rq);
unsigned int raio_test_rq_op(const struct request *rq);
size_t raio_test_rq_pos(const struct request *rq);
size_t raio_test_rq_bytes(const struct request *rq);
void raio_test_rq_each_segment(struct request *rq, raio_test_segment_fn segment,
			       void *arg);

void raio_test_file_set_nowait(struct file *file)
{
	file->f_mode |= FMODE_NOWAIT;
}

bool raio_test_kiocb_nowait(const struct kiocb *iocb)
{
	return iocb->ki_flags & IOCB_NOWAIT;
}

u16 raio_test_kiocb_ioprio(const struct kiocb *iocb)
{
	return iocb->ki_ioprio;
}

bool raio_test_kiocb_sync(const struct kiocb *iocb)
{
	return !iocb->ki_complete;
}

void raio_test_kiocb_complete(struct kiocb *iocb, long result)
{
	if (result > 0)
		iocb->ki_pos += result;
	iocb->ki_complete(iocb, result);
}

/*
 * raio is asked for by name at the moment it is needed, so that it can be
 * removed, or not be there, while this module is. It must not take a request
 * of kernel AIO for its own.
 */
void raio_test_offer_cancel(struct kiocb *iocb, raio_cancel_fn cancel,
			    kiocb_cancel_fn *aio_cancel)
{
	typeof(&raio_set_cancel_fn) set_cancel;
	bool aio = false;

#ifdef CONFIG_AIO
	aio = iocb->ki_flags & IOCB_AIO_RW;
	if (aio)
		kiocb_set_cancel_fn(iocb, aio_cancel);
#endif
	set_cancel = symbol_get(raio_set_cancel_fn);
	if (set_cancel) {
		WARN_ON(set_cancel(iocb, cancel) && aio);
		symbol_put(raio_set_cancel_fn);
	}
}

bool raio_test_interrupting(void)
{
	return !in_task();
}

bool raio_test_iter_is_user(const struct iov_iter *iter)
{
	return user_backed_iter(iter);
}

/* The kernel crate's disk has no owner: it could be removed while open. */
static const struct block_device_operations raio_test_disk_ops = {
	.owner = THIS_MODULE,
};

struct gendisk *raio_test_add_disk(struct blk_mq_tag_set *set, void *queue_data,
				   const char *name, u64 sectors, bool protects)
{
	struct queue_limits lim = {
		.logical_block_size = 512,
		.max_hw_sectors = 2048,
		.max_segments = 257,
	};
	struct gendisk *disk;
	int err;

	/* It keeps none of what protects the data, so that nothing can be verified. */
	if (protects) {
		/* A request isn't more, for what protects it is in one piece. */
		lim.max_segment_size = 1 << 20;
		lim.integrity = (struct blk_integrity){
			.flags = BLK_INTEGRITY_NOVERIFY,
			.csum_type = BLK_INTEGRITY_CSUM_CRC,
			.metadata_size = 8,
			.pi_tuple_size = 8,
			.interval_exp = SECTOR_SHIFT,
		};
	}
	disk = blk_mq_alloc_disk(set, &lim, queue_data);
	if (IS_ERR(disk))
		return disk;
	strscpy(disk->disk_name, name, sizeof(disk->disk_name));
	disk->fops = &raio_test_disk_ops;
	/* Tests count: neighbours must not become one request. */
	blk_queue_flag_set(QUEUE_FLAG_NOMERGES, disk->queue);
	set_capacity(disk, sectors);
	err = add_disk(disk);
	if (err) {
		put_disk(disk);
		return ERR_PTR(err);
	}
	return disk;
}

bool raio_test_rq_nowait(const struct request *rq)
{
	return rq->cmd_flags & REQ_NOWAIT;
}

u16 raio_test_rq_ioprio(struct request *rq)
{
	return req_get_ioprio(rq);
}

bool raio_test_rq_protected(struct request *rq)
{
	return blk_integrity_rq(rq);
}

unsigned int raio_test_rq_op(const struct request *rq)
{
	return (__force unsigned int)req_op(rq);
}

size_t raio_test_rq_pos(const struct request *rq)
{
	return blk_rq_pos(rq) << SECTOR_SHIFT;
}

size_t raio_test_rq_bytes(const struct request *rq)
{
	return blk_rq_bytes(rq);
}

void raio_test_rq_each_segment(struct request *rq, raio_test_segment_fn segment,
			       void *arg)
{
	struct req_iterator iter;
	struct bio_vec bv;

	rq_for_each_segment(bv, rq, iter) {
		void *addr = bvec_kmap_local(&bv);

		segment(arg, addr, bv.bv_len);
		kunmap_local(addr);
	}
}
