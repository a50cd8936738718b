/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen makes rust/bindings.rs from: our own uapi header, the few
 * kernel functions that the kernel crate's bindings lack, and constants that
 * bindgen can't evaluate from their macros. The types of the kernel's own are
 * taken from kernel::bindings, never generated a second time.
 */
#include <linux/anon_inodes.h>
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/migrate.h>
#include <linux/mman.h>
#include <linux/slab.h>
#include <linux/sysctl.h>
#include <uapi/linux/raio.h>

#include "../helpers/helpers.h"

const u32 RAIO_CMD_QUERY = RAIO_IOC_QUERY;
const u32 RAIO_CMD_STATS = RAIO_IOC_STATS;
const u32 RAIO_CMD_SETUP = RAIO_IOC_SETUP;
const u32 RAIO_CMD_DESTROY = RAIO_IOC_DESTROY;
const u32 RAIO_CMD_SUBMIT = RAIO_IOC_SUBMIT;
const u32 RAIO_CMD_GETEVENTS = RAIO_IOC_GETEVENTS;
const u32 RAIO_CMD_CANCEL = RAIO_IOC_CANCEL;
const u32 RAIO_CMD_ENTER = RAIO_IOC_ENTER;
const u32 RAIO_CMD_BUFFERS = RAIO_IOC_BUFFERS;
const u32 RAIO_CMD_FILES = RAIO_IOC_FILES;

const u64 RAIO_HAS_POLL = RAIO_FEAT_POLL;
const u64 RAIO_HAS_SIGMASK = RAIO_FEAT_SIGMASK;
const u64 RAIO_HAS_MIN_WAIT = RAIO_FEAT_MIN_WAIT;
const u64 RAIO_HAS_CANCEL = RAIO_FEAT_CANCEL;
const u64 RAIO_HAS_ENTER = RAIO_FEAT_ENTER;
const u64 RAIO_HAS_REGISTER = RAIO_FEAT_REGISTER;

const fmode_t RAIO_FMODE_READ = FMODE_READ;
const fmode_t RAIO_FMODE_WRITE = FMODE_WRITE;
const fmode_t RAIO_FMODE_NOWAIT = FMODE_NOWAIT;
const u32 RAIO_FOP_BUFFER_RASYNC = (__force u32)FOP_BUFFER_RASYNC;
const u32 RAIO_FOP_BUFFER_WASYNC = (__force u32)FOP_BUFFER_WASYNC;
const u32 RAIO_O_NONBLOCK = O_NONBLOCK;
const u32 RAIO_IOCB_DIRECT = (__force u32)IOCB_DIRECT;
const u32 RAIO_IOCB_APPEND = (__force u32)IOCB_APPEND;
const u32 RAIO_IOCB_DSYNC = (__force u32)IOCB_DSYNC;
const u32 RAIO_IOCB_NOIO = (__force u32)IOCB_NOIO;
const u32 RAIO_IOCB_NOWAIT = (__force u32)IOCB_NOWAIT;
const u32 RAIO_IOCB_WAITQ = (__force u32)IOCB_WAITQ;
const u32 RAIO_IOCB_HIPRI = (__force u32)IOCB_HIPRI;
const u32 RAIO_IOCB_WRITE = (__force u32)IOCB_WRITE;
const u32 RAIO_IOCB_EVENTFD = (__force u32)IOCB_EVENTFD;
const u32 RAIO_POLLFREE = (__force u32)POLLFREE;
const u32 RAIO_EPOLL_ALWAYS = (__force u32)(EPOLLERR | EPOLLHUP);
const u64 RAIO_RWF_SUPPORTED = (__force u64)RWF_SUPPORTED;
const unsigned long RAIO_PROT_RW = PROT_READ | PROT_WRITE;
const unsigned long RAIO_MAP_SHARED = MAP_SHARED;
const slab_flags_t RAIO_SLAB_ACCOUNT = SLAB_ACCOUNT | SLAB_HWCACHE_ALIGN;
const s64 RAIO_KTIME_MAX = KTIME_MAX;
const int RAIO_EIOCBQUEUED = EIOCBQUEUED;
const u32 RAIO_DIRECT_READ = (__force u32)(REQ_OP_READ | REQ_NOWAIT);
const u32 RAIO_DIRECT_WRITE = (__force u32)(REQ_OP_WRITE | REQ_SYNC | REQ_IDLE | REQ_NOWAIT);
const u32 RAIO_POLLED = (__force u32)REQ_POLLED;
const u32 RAIO_NOMERGE = (__force u32)REQ_NOMERGE;
const u16 RAIO_BIO_CLONED = 1U << BIO_CLONED;
const u32 RAIO_BLK_STS_AGAIN = (__force u32)BLK_STS_AGAIN;
const u32 RAIO_BLK_STS_NOTSUPP = (__force u32)BLK_STS_NOTSUPP;

/*
 * What Rust reads and writes of the kernel's structures. The offsets as C has
 * them are compared with bindgen's when the module is compiled (bindings.rs),
 * for bindgen has been seen to get one wrong.
 */
#define RAIO_LAYOUT(type, field) \
	const size_t RAIO_OFFSET_##type##_##field = offsetof(struct type, field)

RAIO_LAYOUT(kiocb, ki_filp);
RAIO_LAYOUT(kiocb, ki_pos);
RAIO_LAYOUT(kiocb, ki_complete);
RAIO_LAYOUT(kiocb, ki_flags);
RAIO_LAYOUT(kiocb, ki_ioprio);
RAIO_LAYOUT(kiocb, ki_waitq);
RAIO_LAYOUT(file, f_op);
RAIO_LAYOUT(file, f_inode);
RAIO_LAYOUT(file, private_data);
RAIO_LAYOUT(file, f_mode);
RAIO_LAYOUT(file, f_flags);
RAIO_LAYOUT(file, f_mapping);
RAIO_LAYOUT(file, f_iocb_flags);
RAIO_LAYOUT(file_operations, fop_flags);
RAIO_LAYOUT(file_operations, mmap);
RAIO_LAYOUT(file_operations, poll);
RAIO_LAYOUT(file_operations, read_iter);
RAIO_LAYOUT(file_operations, write_iter);
RAIO_LAYOUT(file_operations, fsync);
RAIO_LAYOUT(inode, i_mapping);
RAIO_LAYOUT(inode, i_size);
RAIO_LAYOUT(inode, i_private);
RAIO_LAYOUT(address_space, host);
RAIO_LAYOUT(address_space, a_ops);
RAIO_LAYOUT(address_space, i_private_lock);
RAIO_LAYOUT(address_space_operations, read_folio);
RAIO_LAYOUT(address_space_operations, dirty_folio);
RAIO_LAYOUT(address_space_operations, migrate_folio);
RAIO_LAYOUT(vm_operations_struct, open);
RAIO_LAYOUT(vm_operations_struct, close);
RAIO_LAYOUT(vm_operations_struct, fault);
RAIO_LAYOUT(vm_operations_struct, map_pages);
RAIO_LAYOUT(vm_operations_struct, page_mkwrite);
RAIO_LAYOUT(vm_operations_struct, mremap);
RAIO_LAYOUT(vm_area_struct, vm_file);
RAIO_LAYOUT(vm_area_struct, vm_mm);
RAIO_LAYOUT(vm_area_struct, vm_ops);
RAIO_LAYOUT(vfsmount, mnt_sb);
RAIO_LAYOUT(kmem_cache_args, align);
RAIO_LAYOUT(rcu_work, work);
RAIO_LAYOUT(delayed_work, work);
RAIO_LAYOUT(bio, bi_opf);
RAIO_LAYOUT(bio, bi_flags);
RAIO_LAYOUT(bio, bi_ioprio);
RAIO_LAYOUT(bio, bi_write_hint);
RAIO_LAYOUT(bio, bi_status);
RAIO_LAYOUT(bio, bi_io_vec);
RAIO_LAYOUT(bio, bi_iter);
RAIO_LAYOUT(bio, bi_end_io);
RAIO_LAYOUT(bio_vec, bv_page);
RAIO_LAYOUT(bio_vec, bv_len);
RAIO_LAYOUT(bio_vec, bv_offset);
RAIO_LAYOUT(bvec_iter, bi_sector);
RAIO_LAYOUT(bvec_iter, bi_size);
RAIO_LAYOUT(bvec_iter, bi_offset);
RAIO_LAYOUT(blk_plug, cached_rqs);
RAIO_LAYOUT(blk_plug, nr_ios);
RAIO_LAYOUT(block_device, bd_dev);
RAIO_LAYOUT(wait_queue_entry, func);
RAIO_LAYOUT(wait_queue_head, lock);
RAIO_LAYOUT(wait_queue_head, head);
RAIO_LAYOUT(poll_table_struct, _qproc);
RAIO_LAYOUT(poll_table_struct, _key);
RAIO_LAYOUT(ctl_table, procname);
RAIO_LAYOUT(ctl_table, data);
RAIO_LAYOUT(ctl_table, maxlen);
RAIO_LAYOUT(ctl_table, mode);
RAIO_LAYOUT(ctl_table, proc_handler);

#define RAIO_SIZE(type) const size_t RAIO_SIZE_##type = sizeof(struct type)

RAIO_SIZE(kiocb);
RAIO_SIZE(iov_iter);
RAIO_SIZE(blk_plug);
RAIO_SIZE(percpu_ref);
RAIO_SIZE(poll_table_struct);
RAIO_SIZE(work_struct);
RAIO_SIZE(rcu_work);
RAIO_SIZE(delayed_work);
RAIO_SIZE(bio);
RAIO_SIZE(bio_vec);
RAIO_SIZE(bvec_iter);
RAIO_SIZE(completion);
RAIO_SIZE(mutex);
RAIO_SIZE(wait_page_queue);
RAIO_SIZE(wait_queue_entry);
RAIO_SIZE(wait_queue_head);
RAIO_SIZE(xarray);
RAIO_SIZE(ctl_table);
RAIO_SIZE(file_operations);
RAIO_SIZE(address_space_operations);
RAIO_SIZE(vm_operations_struct);
RAIO_SIZE(kmem_cache_args);
RAIO_SIZE(io_event);
