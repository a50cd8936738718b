/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The static inlines, macros and per-cpu data that need a C body to be
 * reached from Rust. What is decided here is what follows from fields of the
 * kernel's alone: which devices and transfers may go the direct path or be polled
 * for, what isn't cached, who is charged.
 */
#ifndef _RAIO_HELPERS_H
#define _RAIO_HELPERS_H

#include <linux/blk_types.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/poll.h>
#include <linux/signal_types.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

enum raio_counter {
	RAIO_CTR_SETUPS,
	RAIO_CTR_FREES,
	RAIO_CTR_SUBMITTED,
	RAIO_CTR_WENT_ON,
	RAIO_CTR_COMPLETED,
	RAIO_CTR_REAPED,
	RAIO_CTR_REFUSED,
	RAIO_CTR_MIGRATED,
	RAIO_CTR_CANCELLED,
	RAIO_CTR_UNCANCELLED,
	RAIO_CTR_EARLY,
	RAIO_CTR_DEAD_LOOKUPS,
	RAIO_CTR_KILL_BUSY,
	RAIO_CTR_KILL_INFLIGHT,
	RAIO_CTR_KILLED_WAITS,
	RAIO_CTR_SECOND_DESTROYS,
	RAIO_CTR_ABANDONED,
	RAIO_CTR_POLLED_INLINE,
	RAIO_CTR_POLLED_DEFERRED,
	RAIO_CTR_PUNTED,
	RAIO_CTR_PARKED,
	RAIO_CTR_KICKED,
	RAIO_CTR_DIRECT,
	RAIO_CTR_IOPOLLED,
	RAIO_NR_CTR,
};

void raio_counter_add(enum raio_counter which, u64 n);
u64 raio_counter_sum(enum raio_counter which);

bool raio_percpu_ref_tryget_live(struct percpu_ref *ref);
void *raio_percpu_ref_lookup(void *const *entries, size_t size, size_t index, size_t offset);
void raio_percpu_ref_get_many(struct percpu_ref *ref, unsigned long n);
void raio_percpu_ref_put_many(struct percpu_ref *ref, unsigned long n);

bool raio_get_user_words(u64 *to, const u64 __user *from, unsigned int n);
void raio_disable_faults(void);
void raio_enable_faults(void);
bool raio_get_user_u32(u32 *value, const u32 __user *addr);
bool raio_get_user_long(unsigned long *value, const unsigned long __user *addr);
bool raio_put_user_u32(u32 value, u32 __user *to);

struct workqueue_struct *raio_alloc_workqueue(const char *name, bool reclaim);
void raio_init_work(struct work_struct *work, work_func_t func);
void raio_init_rcu_work(struct rcu_work *rwork, work_func_t func);
void raio_init_delayed_work(struct delayed_work *dwork, work_func_t func);
void raio_queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *dwork,
			     unsigned int ms);

void raio_leave_module(void);

struct task_struct *raio_run_thread(int (*f)(void *), void *data, const char *name);
bool raio_wait_for_freeze(void);
bool raio_freezing(void);
void raio_be_frozen(void);
void raio_keep_awake(void);

int raio_xa_reserve(struct xarray *xa, u32 *id, u32 max);

/**
 * struct raio_identity - what a task acts with
 * @cred:	its credentials
 * @io_context:	of block I/O, or NULL
 * @blkcg:	the cgroup that its block I/O is charged to, or NULL
 * @process:	the leader of its process
 * @fsize:	RLIMIT_FSIZE
 * @rights:	what it may do with memory by its protection keys
 */
struct raio_identity {
	const struct cred *cred;
	void *io_context;
	void *blkcg;
	struct task_struct *process;
	unsigned long fsize;
	u32 rights;
};

bool raio_is_current(const struct raio_identity *who);
const struct cred *raio_get_current_cred(void);
void *raio_get_io_context(void);
void raio_put_io_context(void *ioc);
void raio_drop_io_context(void *ioc);
void *raio_swap_io_context(void *ioc);
void *raio_get_blkcg(void);
void raio_put_blkcg(void *css);
void raio_assume_blkcg(void *css);
struct task_struct *raio_get_process(void);
void raio_put_process(struct task_struct *leader);
void raio_account_io(struct task_struct *leader);
void raio_forget_io(void);
bool raio_has_done_io(void);
unsigned long raio_fsize_limit(void);
size_t raio_nofile_limit(void);
unsigned long raio_swap_fsize_limit(unsigned long limit);
u32 raio_access_rights(void);
u32 raio_swap_access_rights(u32 rights);
void *raio_charge_mm(struct mm_struct *mm, void **saved);
void raio_uncharge_mm(void *memcg, void *saved);
struct user_struct *raio_charge_locked(struct mm_struct *mm, unsigned long pages);
void raio_uncharge_locked(struct mm_struct *mm, struct user_struct *user, unsigned long pages);
unsigned long raio_folio_of(struct page *page, const struct folio **folio);
bool raio_page_follows(struct page *page, struct page *next);
bool raio_vec_is_dirty(const struct bio_vec *vec);
void raio_vec_try_dirty(const struct bio_vec *vec);
void raio_vec_dirty(const struct bio_vec *vec);
void raio_vec_unpin(const struct bio_vec *vec);
size_t raio_array_index(size_t index, size_t size);
bool raio_mmget(struct mm_struct *mm);
const struct cred *raio_override_creds(const struct cred *cred);
struct mm_struct *raio_current_mm(void);
struct vfsmount *raio_file_mount(struct file *file);
void raio_file_map_no_more(struct file *file);
void raio_file_disown(struct file *file);

void raio_mm_quiesce(struct mm_struct *mm);
bool raio_mm_is_used(const struct mm_struct *mm);
bool raio_process_is_in(struct task_struct *leader, const struct mm_struct *mm);
bool raio_task_killed(void);
bool raio_task_is_kernel_thread(void);
uid_t raio_charged_user(void);
size_t raio_ram_bytes(void);
void raio_report_stuck(struct file *file, dev_t dev, size_t nr, unsigned int seconds);

int raio_mutex_lock_killable(struct mutex *lock);
long raio_wait_killable(struct completion *done, unsigned int seconds);
int raio_schedule_until(ktime_t *expires);
void raio_sigmask_begin(sigset_t *mask);
void raio_sigmask_end(void);
bool raio_signal_pending(void);
void raio_relax(void);
bool raio_others_wait(void);
void raio_pause(unsigned int us);

bool raio_poll_asks_process(struct file *file);
__poll_t raio_vfs_poll(struct file *file, struct poll_table_struct *table);
u16 raio_mangle_poll(__poll_t mask);
__poll_t raio_demangle_poll(u16 mask);
void raio_init_wait_entry(struct wait_queue_entry *entry, wait_queue_func_t func);
void raio_wait_entry_del_init(struct wait_queue_entry *entry);

struct folio *raio_ring_folio(struct address_space *mapping, pgoff_t index, bool movable);
void *raio_folio_address(struct folio *folio);
pgoff_t raio_folio_index(struct folio *folio);
void raio_folio_get(struct folio *folio);
void raio_folio_put(struct folio *folio);

void raio_init_page_wait(struct wait_page_queue *wait, wait_queue_func_t func);
struct wait_page_queue *raio_page_wait_kicked(struct wait_queue_entry *entry, void *key);

bool raio_kiocb_is_cold(struct kiocb *iocb);
bool raio_file_notes_time(struct file *file);
unsigned long raio_jiffies(void);
bool raio_kiocb_write_waits(const struct kiocb *iocb);
u8 raio_file_blkbits(const struct file *file);
bool raio_kiocb_lacks_queue(const struct kiocb *iocb);
void raio_kiocb_make_queue(const struct kiocb *iocb);
bool raio_kiocb_is_of_disk(const struct kiocb *iocb);
void raio_kiocb_poll_one(struct kiocb *iocb, size_t len, unsigned int pieces);
unsigned int raio_iov_iter_pieces(const struct iov_iter *iter);
unsigned int raio_kiocb_reserve(const struct kiocb *iocb, unsigned int nr);
bool raio_atime_is_due(struct file *file);
bool raio_pipe_is_busy(struct file *file);
int raio_kiocb_start_write(struct kiocb *iocb, bool nowait);
void raio_kiocb_end_write(struct kiocb *iocb);
int raio_kiocb_set_rw_flags(struct kiocb *iocb, u32 flags, int rw);
u16 raio_current_ioprio(void);
int raio_ioprio_check(int ioprio);
size_t raio_iov_iter_count(const struct iov_iter *iter);
void raio_iov_iter_bvec(struct iov_iter *iter, int rw, const struct bio_vec *vecs,
			unsigned long nr, size_t offset, size_t len);
struct block_device *raio_direct_bdev(struct file *file);
bool raio_bdev_sorts(struct block_device *bdev);
bool raio_direct_fits(struct block_device *bdev, struct file *file, loff_t pos,
		      unsigned long addr, size_t len, bool write);
bool raio_file_can_iopoll(struct file *file);
int raio_iopoll_bio(struct bio *bio, const unsigned int *over);
int raio_iopoll_kiocb(struct kiocb *iocb);
bool raio_kiocb_is_polled(const struct kiocb *iocb);
void raio_kiocb_keep_apart(const struct kiocb *iocb);
void raio_file_accessed(struct file *file);
void raio_account_write(size_t bytes);
u8 raio_file_write_hint(struct file *file);
bool raio_in_task(const struct task_struct *task);
bool raio_file_is_of_its_caller(struct file *file);
bool raio_file_is_fuse(struct file *file);
bool raio_file_is_reg(struct file *file);
bool raio_file_is_blk(struct file *file);

void raio_allow_signals(void);
void raio_disallow_signals(void);
void raio_forward_signals(struct task_struct *leader);
void raio_kill_task(struct task_struct *task);
struct task_struct *raio_current(void);

#endif /* _RAIO_HELPERS_H */
