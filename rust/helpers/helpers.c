// SPDX-License-Identifier: GPL-2.0
/*
 * C bodies for what Rust can't call: static inlines, macros and per-cpu
 * data. What they are for is said where they are used.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blk-cgroup.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/fault-inject-usercopy.h>
#include <linux/freezer.h>
#include <linux/highmem.h>
#include <linux/iocontext.h>
#include <linux/ioprio.h>
#include <linux/kthread.h>
#include <linux/magic.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/nospec.h>
#include <linux/percpu.h>
#include <linux/percpu-refcount.h>
#include <linux/pipe_fs_i.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>
#include <linux/sched/user.h>
#include <linux/suspend.h>
#include <linux/task_io_accounting_ops.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>

#ifdef CONFIG_X86
#include <asm/pkru.h>
#endif

#include <linux/raio.h>

#include "helpers.h"

/* Becomes part of Rust code, where C's can (CONFIG_RUST_INLINE_HELPERS). */
#define __rust_helper __always_inline

struct raio_counters {
	u64 v[RAIO_NR_CTR];
};

static DEFINE_PER_CPU(struct raio_counters, raio_counters);

__rust_helper void raio_counter_add(enum raio_counter which, u64 n)
{
	this_cpu_add(raio_counters.v[which], n);
}

u64 raio_counter_sum(enum raio_counter which)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(raio_counters, cpu).v[which]);
	return sum;
}

__rust_helper bool raio_percpu_ref_tryget_live(struct percpu_ref *ref)
{
	return percpu_ref_tryget_live(ref);
}

/*
 * What @entries[@index] points to, if there is such an entry, with a reference to the count
 * that is there at @offset. NULL if that was killed. What is taken out lives for a grace period.
 */
__rust_helper void *raio_percpu_ref_lookup(void *const *entries, size_t size, size_t index,
					   size_t offset)
{
	void *entry;

	if (index >= size)
		return NULL;

	index = array_index_nospec(index, size);
	rcu_read_lock();
	/* Pairs with the exchange (full order) that has put it there. */
	entry = smp_load_acquire(&entries[index]);
	if (entry && !percpu_ref_tryget_live_rcu(entry + offset))
		entry = NULL;
	rcu_read_unlock();
	return entry;
}

__rust_helper void raio_percpu_ref_get_many(struct percpu_ref *ref, unsigned long n)
{
	percpu_ref_get_many(ref, n);
}

__rust_helper void raio_percpu_ref_put_many(struct percpu_ref *ref, unsigned long n)
{
	percpu_ref_put_many(ref, n);
}

/* copy_from_user() of @n words, which isn't worth a call. */
__rust_helper bool raio_get_user_words(u64 *to, const u64 __user *from, unsigned int n)
{
	might_fault();
	if (should_fail_usercopy())
		return false;
	scoped_user_read_access_size(from, n * sizeof(*from), fault) {
		const u64 __user *at = from;

		for (; n >= 4; n -= 4, to += 4, at += 4) {
			unsafe_get_user(to[0], at, fault);
			unsafe_get_user(to[1], at + 1, fault);
			unsafe_get_user(to[2], at + 2, fault);
			unsafe_get_user(to[3], at + 3, fault);
		}
		if (n & 2) {
			unsafe_get_user(to[0], at, fault);
			unsafe_get_user(to[1], at + 1, fault);
		}
		if (n & 1)
			unsafe_get_user(to[n - 1], at + n - 1, fault);
	}
	return true;
fault:
	return false;
}

void raio_disable_faults(void)
{
	pagefault_disable();
}

void raio_enable_faults(void)
{
	pagefault_enable();
}

__rust_helper bool raio_get_user_u32(u32 *value, const u32 __user *addr)
{
	return !should_fail_usercopy() && !get_user(*value, addr);
}

__rust_helper bool raio_get_user_long(unsigned long *value, const unsigned long __user *addr)
{
	return !should_fail_usercopy() && !get_user(*value, addr);
}

__rust_helper bool raio_put_user_u32(u32 value, u32 __user *to)
{
	return !should_fail_usercopy() && !put_user(value, to);
}

struct workqueue_struct *raio_alloc_workqueue(const char *name, bool reclaim)
{
	/* For each user has so many workers, which may be stuck. */
	return alloc_workqueue("%s", WQ_UNBOUND | (reclaim ? WQ_MEM_RECLAIM : 0), WQ_MAX_ACTIVE,
			       name);
}

void raio_init_work(struct work_struct *work, work_func_t func)
{
	INIT_WORK(work, func);
}

void raio_init_rcu_work(struct rcu_work *rwork, work_func_t func)
{
	INIT_RCU_WORK(rwork, func);
}

void raio_init_delayed_work(struct delayed_work *dwork, work_func_t func)
{
	INIT_DELAYED_WORK(dwork, func);
}

/* Asked first, for to find that it is queued would be a write of what all share. */
void raio_queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *dwork,
			     unsigned int ms)
{
	if (!delayed_work_pending(dwork))
		queue_delayed_work(wq, dwork, msecs_to_jiffies(ms));
}

/* Who is preempted in our code may be so without a lock. */
void raio_leave_module(void)
{
	synchronize_rcu();
	synchronize_rcu_tasks();
}

struct task_struct *raio_run_thread(int (*f)(void *), void *data, const char *name)
{
	return kthread_run(f, data, "%s", name);
}

/* Returns when the running thread is to be frozen, or false when it is to end. */
bool raio_wait_for_freeze(void)
{
	set_freezable();
	for (;;) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (kthread_should_stop() || freezing(current))
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	return !kthread_should_stop();
}

bool raio_freezing(void)
{
	return freezing(current);
}

void raio_be_frozen(void)
{
	try_to_freeze();
}

void raio_keep_awake(void)
{
	pm_system_wakeup();
}

/* An id of which xa_load() says NULL until something is stored there. */
int raio_xa_reserve(struct xarray *xa, u32 *id, u32 max)
{
	return xa_alloc(xa, id, NULL, XA_LIMIT(0, max), GFP_KERNEL_ACCOUNT);
}

const struct cred *raio_get_current_cred(void)
{
	return get_current_cred();
}

/* Shared as CLONE_IO does. */
void *raio_get_io_context(void)
{
	struct io_context *ioc = current->io_context;

	if (ioc) {
		atomic_long_inc(&ioc->refcount);
		atomic_inc(&ioc->active_ref);
	}
	return ioc;
}

/* As who shared it last and exits; what is in it goes with the last reference. */
void raio_put_io_context(void *data)
{
	struct io_context *ioc = data;

	if (!ioc)
		return;
	if (atomic_dec_and_test(&ioc->active_ref))
		put_io_context(ioc);
	put_io_context(ioc);
}

/* As one that exits and hasn't shared it. */
void raio_drop_io_context(void *data)
{
	struct io_context *ioc = data;

	if (atomic_dec_and_test(&ioc->active_ref))
		put_io_context(ioc);
}

void *raio_swap_io_context(void *ioc)
{
	void *old;

	task_lock(current);
	old = current->io_context;
	current->io_context = ioc;
	task_unlock(current);
	return old;
}

#ifdef CONFIG_BLK_CGROUP
void *raio_get_blkcg(void)
{
	return task_get_css(current, io_cgrp_id);
}

static bool is_current_blkcg(const void *css)
{
	guard(rcu)();
	return css == task_css(current, io_cgrp_id);
}

void raio_put_blkcg(void *css)
{
	css_put(css);
}
#else
void *raio_get_blkcg(void)
{
	return NULL;
}

static bool is_current_blkcg(const void *css)
{
	return true;
}

void raio_put_blkcg(void *css)
{
}
#endif

void raio_assume_blkcg(void *css)
{
	kthread_associate_blkcg(css);
}

struct task_struct *raio_get_process(void)
{
	return get_task_struct(current->group_leader);
}

void raio_put_process(struct task_struct *leader)
{
	put_task_struct(leader);
}

/* What the task has read and written is another's, as if it had been a thread of that. */
void raio_account_io(struct task_struct *leader)
{
	struct signal_struct *sig = leader->signal;

	write_seqlock_irq(&sig->stats_lock);
	sig->inblock += task_io_get_inblock(current);
	sig->oublock += task_io_get_oublock(current);
	task_io_accounting_add(&sig->ioac, &current->ioac);
	write_sequnlock_irq(&sig->stats_lock);
	task_io_accounting_init(&current->ioac);
}

void raio_forget_io(void)
{
	task_io_accounting_init(&current->ioac);
}

/* Has the task read or written anything of a device? */
bool raio_has_done_io(void)
{
	return task_io_get_inblock(current) | task_io_get_oublock(current);
}

size_t raio_nofile_limit(void)
{
	return rlimit(RLIMIT_NOFILE);
}

__rust_helper unsigned long raio_fsize_limit(void)
{
	return rlimit(RLIMIT_FSIZE);
}

/* Of a kernel thread, which shares its limits with nobody. */
unsigned long raio_swap_fsize_limit(unsigned long limit)
{
	return xchg(&current->signal->rlim[RLIMIT_FSIZE].rlim_cur, limit);
}

/*
 * What the running thread may do with memory by its protection keys. (Those of
 * other architectures than x86 aren't known.)
 */
__rust_helper u32 raio_access_rights(void)
{
#ifdef CONFIG_X86
	return read_pkru();
#else
	return 0;
#endif
}

u32 raio_swap_access_rights(u32 rights)
{
	u32 old = raio_access_rights();

#ifdef CONFIG_X86
	write_pkru(rights);
#endif
	return old;
}

__rust_helper bool raio_is_current(const struct raio_identity *who)
{
	return who->cred == current_cred() && who->io_context == current->io_context &&
	       is_current_blkcg(who->blkcg) && who->process->signal == current->signal &&
	       who->fsize == raio_fsize_limit() && who->rights == raio_access_rights();
}

/* What the task allocates is charged to who has @mm. */
void *raio_charge_mm(struct mm_struct *mm, void **saved)
{
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(mm);

	*saved = set_active_memcg(memcg);
	return memcg;
}

void raio_uncharge_mm(void *memcg, void *saved)
{
	set_active_memcg(saved);
	mem_cgroup_put(memcg);
}

/*
 * What the caller's user locks more of the memory of @mm, which is NULL, and has
 * no limit, where the caller may lock all there is.
 */
struct user_struct *raio_charge_locked(struct mm_struct *mm, unsigned long pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct user_struct *user = NULL;
	long locked;

	if (!capable(CAP_IPC_LOCK)) {
		user = get_uid(current_user());
		locked = atomic_long_read(&user->locked_vm);
		do {
			if (locked + pages > limit) {
				free_uid(user);
				return ERR_PTR(-ENOMEM);
			}
		} while (!atomic_long_try_cmpxchg(&user->locked_vm, &locked, locked + pages));
	}
	atomic64_add(pages, &mm->pinned_vm);
	return user;
}

void raio_uncharge_locked(struct mm_struct *mm, struct user_struct *user, unsigned long pages)
{
	atomic64_sub(pages, &mm->pinned_vm);
	if (user) {
		atomic_long_sub(pages, &user->locked_vm);
		free_uid(user);
	}
}

/* The folio that @page, which is pinned, is in; returns its pages. */
__rust_helper unsigned long raio_folio_of(struct page *page, const struct folio **folio)
{
	*folio = page_folio(page);
	return folio_nr_pages(*folio);
}

/* Is @next what comes after @page in the same folio? */
__rust_helper bool raio_page_follows(struct page *page, struct page *next)
{
	return page + 1 == next && page_folio(page) == page_folio(next);
}

static struct folio *vec_folio(const struct bio_vec *vec)
{
	return page_folio(vec->bv_page);
}

__rust_helper bool raio_vec_is_dirty(const struct bio_vec *vec)
{
	return folio_test_dirty(vec_folio(vec));
}

/* Marks it dirty unless somebody has it locked. */
void raio_vec_try_dirty(const struct bio_vec *vec)
{
	struct folio *folio = vec_folio(vec);

	if (!folio_test_dirty(folio) && folio_trylock(folio)) {
		folio_mark_dirty(folio);
		folio_unlock(folio);
	}
}

void raio_vec_dirty(const struct bio_vec *vec)
{
	folio_mark_dirty_lock(vec_folio(vec));
}

/* Releases a part of one folio whose pages were pinned one by one. */
__rust_helper void raio_vec_unpin(const struct bio_vec *vec)
{
	unpin_user_folio(vec_folio(vec), DIV_ROUND_UP(vec->bv_offset + vec->bv_len, PAGE_SIZE));
}

/* @index, which is less than @size, also for a processor that runs ahead. */
__rust_helper size_t raio_array_index(size_t index, size_t size)
{
	return array_index_nospec(index, size);
}

bool raio_mmget(struct mm_struct *mm)
{
	return mmget_not_zero(mm);
}

/* What the task acts with from now on; returns with what it did before. */
const struct cred *raio_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

__rust_helper struct mm_struct *raio_current_mm(void)
{
	return current->mm;
}

/*
 * Waits for who changes the mappings of @mm, and so may be in our code, where
 * raio_leave_module() doesn't. Only there, for user space can have the lock be
 * held for as long as it likes.
 */
void raio_mm_quiesce(struct mm_struct *mm)
{
	if (IS_ENABLED(CONFIG_PREEMPTION) && !IS_ENABLED(CONFIG_TASKS_RCU)) {
		mmap_write_lock(mm);
		mmap_write_unlock(mm);
	}
}

/* Has any thread of that process @mm? The leader may have ended before others. */
bool raio_process_is_in(struct task_struct *leader, const struct mm_struct *mm)
{
	struct task_struct *t;
	bool found = false;

	rcu_read_lock();
	for_each_thread(leader, t) {
		if (READ_ONCE(t->mm) == mm) {
			found = true;
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

/* Has any process @mm? Kernel threads may act for one, and don't count. */
bool raio_mm_is_used(const struct mm_struct *mm)
{
	struct task_struct *p;
	bool found = false;

	rcu_read_lock();
	for_each_process(p) {
		if (!(p->flags & PF_KTHREAD) && raio_process_is_in(p, mm)) {
			found = true;
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

__rust_helper bool raio_task_killed(void)
{
	return fatal_signal_pending(current) ||
	       (current->flags & PF_EXITING && current->exit_code & 0x7f);
}

bool raio_task_is_kernel_thread(void)
{
	return current->flags & PF_KTHREAD;
}

uid_t raio_charged_user(void)
{
	const struct user_namespace *ns = current_user_ns();
	kuid_t user = current_uid();

	for (; ns->parent; ns = ns->parent) {
		if (!uid_eq(ns->owner, GLOBAL_ROOT_UID))
			user = ns->owner;
	}
	return __kuid_val(user);
}

size_t raio_ram_bytes(void)
{
	return totalram_pages() << PAGE_SHIFT;
}

/* Of two messages that contend for their rate limit, one isn't printed. */
static DEFINE_MUTEX(raio_report_lock);

/* A message, for which Rust lacks the format of a file's name. */
void raio_report_stuck(struct file *file, dev_t dev, size_t nr, unsigned int seconds)
{
	struct inode *inode;

	guard(mutex)(&raio_report_lock);
	if (!file && nr) {
		pr_warn_ratelimited("%s[%d] waits %u s for %zu requests to end, one of them on block device %u:%u: see to that device\n",
				    current->comm, task_pid_nr(current), seconds, nr, MAJOR(dev),
				    MINOR(dev));
		return;
	}
	if (!file) {
		pr_warn_ratelimited("%s[%d] waits %u s for calls on its contexts to return\n",
				    current->comm, task_pid_nr(current), seconds);
		return;
	}
	inode = file_inode(file);
	dev = inode->i_rdev ?: inode->i_sb->s_dev;
	pr_warn_ratelimited("%s[%d] waits %u s for %zu requests to end, the oldest on %pD4 (%s, device %u:%u): see to that device\n",
			    current->comm, task_pid_nr(current), seconds, nr, file,
			    inode->i_sb->s_id, MAJOR(dev), MINOR(dev));
}

int raio_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

/* An epoll asks the files that it watches, which may be of FUSE. */
bool raio_poll_asks_process(struct file *file)
{
	return raio_file_is_fuse(file) ||
	       (file_inode(file)->i_sb->s_magic == ANON_INODE_FS_MAGIC &&
		!strcmp(file->f_path.dentry->d_name.name, "[eventpoll]"));
}

__poll_t raio_vfs_poll(struct file *file, struct poll_table_struct *table)
{
	return vfs_poll(file, table);
}

u16 raio_mangle_poll(__poll_t mask)
{
	return mangle_poll(mask);
}

__poll_t raio_demangle_poll(u16 mask)
{
	return demangle_poll(mask);
}

void raio_init_wait_entry(struct wait_queue_entry *entry, wait_queue_func_t func)
{
	init_waitqueue_func_entry(entry, func);
	INIT_LIST_HEAD(&entry->entry);
}

void raio_wait_entry_del_init(struct wait_queue_entry *entry)
{
	list_del_init(&entry->entry);
}

/* What is left of the time, 0 if it is over, or -ERESTARTSYS. */
long raio_wait_killable(struct completion *done, unsigned int seconds)
{
	return wait_for_completion_killable_timeout(done, secs_to_jiffies(seconds));
}

/* The caller has set its task state. NULL is for ever; 0 says time is up. */
int raio_schedule_until(ktime_t *expires)
{
	return schedule_hrtimeout_range(expires, current->timer_slack_ns,
					HRTIMER_MODE_ABS);
}

/*
 * What set_user_sigmask() and restore_saved_sigmask_unless() do, which modules
 * can't call. While TIF_RESTORE_SIGMASK is set, the way back to user space
 * restores the mask after it has called the handlers.
 */
void raio_sigmask_begin(sigset_t *mask)
{
	set_restore_sigmask();
	sigdelsetmask(mask, sigmask(SIGKILL) | sigmask(SIGSTOP));
	sigprocmask(SIG_SETMASK, mask, &current->saved_sigmask);
}

void raio_sigmask_end(void)
{
	if (test_and_clear_restore_sigmask())
		sigprocmask(SIG_SETMASK, &current->saved_sigmask, NULL);
}

__rust_helper bool raio_signal_pending(void)
{
	return signal_pending(current);
}

__rust_helper void raio_relax(void)
{
	cond_resched();
	cpu_relax();
}

bool raio_others_wait(void)
{
	return !single_task_running();
}

void raio_pause(unsigned int us)
{
	usleep_range_state(us, 2 * us, TASK_IDLE);
}

struct vfsmount *raio_file_mount(struct file *file)
{
	return file->f_path.mnt;
}

/* Gives it the operations that new inodes have: the kernel's own, without mmap. */
void raio_file_map_no_more(struct file *file)
{
	WRITE_ONCE(file->f_op, file_inode(file)->i_fop);
}

/* The same with those of its pages: nothing of ours is left. */
void raio_file_disown(struct file *file)
{
	file->f_mapping->a_ops = &empty_aops;
	raio_file_map_no_more(file);
}

/*
 * Pages of rings are written to where they are directly mapped, also after they
 * were moved to whatever page the kernel found, which might be in high memory.
 */
#ifdef CONFIG_HIGHMEM
#error "raio needs all memory to be directly mapped"
#endif

/*
 * A new, zeroed, unlocked page of the ring, with a reference for us. One that
 * can be moved may lie where memory is to be offlined.
 */
struct folio *raio_ring_folio(struct address_space *mapping, pgoff_t index, bool movable)
{
	gfp_t gfp = movable ? GFP_HIGHUSER_MOVABLE : GFP_USER;
	struct folio *folio;

	folio = __filemap_get_folio(mapping, index,
				    FGP_LOCK | FGP_ACCESSED | FGP_CREAT,
				    gfp | __GFP_ZERO | __GFP_RETRY_MAYFAIL |
				    __GFP_NOWARN);
	if (!IS_ERR(folio))
		folio_end_read(folio, true);
	return folio;
}

__rust_helper void *raio_folio_address(struct folio *folio)
{
	return folio_address(folio);
}

pgoff_t raio_folio_index(struct folio *folio)
{
	return folio->index;
}

void raio_folio_get(struct folio *folio)
{
	folio_get(folio);
}

void raio_folio_put(struct folio *folio)
{
	folio_put(folio);
}

void raio_init_page_wait(struct wait_page_queue *wait, wait_queue_func_t func)
{
	init_waitqueue_func_entry(&wait->wait, func);
	INIT_LIST_HEAD(&wait->wait.entry);
}

/* Out of its queue, if the kick is for the page and the bit that are waited for. */
struct wait_page_queue *raio_page_wait_kicked(struct wait_queue_entry *entry, void *key)
{
	struct wait_page_queue *wait = container_of(entry, struct wait_page_queue, wait);

	if (!wake_page_match(wait, key))
		return NULL;
	list_del_init(&entry->entry);
	return wait;
}

/*
 * Has a buffered read no page to begin with, so that it would have to wait? Or does somebody
 * discard what is on a block device, which it waits for, whatever it is told?
 */
bool raio_kiocb_is_cold(struct kiocb *iocb)
{
	struct address_space *mapping = iocb->ki_filp->f_mapping;

	if (S_ISBLK(mapping->host->i_mode)) {
		if (!inode_trylock_shared(mapping->host))
			return true;
		inode_unlock_shared(mapping->host);
	}
	return !xa_load(&mapping->i_pages, iocb->ki_pos >> PAGE_SHIFT) &&
	       iocb->ki_pos < i_size_read(mapping->host) && !IS_DAX(mapping->host);
}

/* Does its file system wait to note a time? With lazytime some do and some don't. */
static bool waits_for_times(const struct inode *inode)
{
	return !(inode->i_sb->s_flags & SB_LAZYTIME) &&
	       (inode->i_op->update_time || inode->i_sb->s_op->dirty_inode);
}

/*
 * Would a write note a new time of its file now, for which its file system has to wait? Then it
 * refuses one that mustn't. With lazytime those have to be tried.
 */
bool raio_file_notes_time(struct file *file)
{
	struct inode *inode = file_inode(file);
	struct timespec64 mtime = inode_get_mtime(inode), now = current_time(inode);

	return !timespec64_equal(&mtime, &now) && !IS_NOCMTIME(inode) &&
	       !(file->f_mode & FMODE_NOCMTIME) && waits_for_times(inode);
}

static bool is_btrfs(const struct inode *inode)
{
	return inode->i_sb->s_magic == BTRFS_SUPER_MAGIC;
}

/*
 * Does a write to the page cache wait, whatever it is told: until it lasts, or on btrfs, which
 * takes one without waiting only where it doesn't copy on write, and then waits for pages?
 */
bool raio_kiocb_write_waits(const struct kiocb *iocb)
{
	return iocb_is_dsync(iocb) || is_btrfs(file_inode(iocb->ki_filp));
}

__rust_helper u8 raio_file_blkbits(const struct file *file)
{
	return file_inode(file)->i_blkbits;
}

/*
 * Does a transfer need a place in the queue of one disk, which a file system doesn't tell that
 * nobody is to wait?
 */
__rust_helper bool raio_kiocb_is_of_disk(const struct kiocb *iocb)
{
	const struct inode *inode = file_inode(iocb->ki_filp);

	return iocb->ki_flags & IOCB_DIRECT && S_ISREG(inode->i_mode) && inode->i_sb->s_bdev;
}

/*
 * Has the file system of a disk yet to make the queue in which it ends direct transfers? It
 * does with the first that isn't waited for, which sleeps, and with that loses its places.
 */
bool raio_kiocb_lacks_queue(const struct kiocb *iocb)
{
	return raio_kiocb_is_of_disk(iocb) && iocb->ki_filp->f_mode & FMODE_NOWAIT &&
	       !READ_ONCE(file_inode(iocb->ki_filp)->i_sb->s_dio_done_wq);
}

/* If that fails, the file system tries once more. */
void raio_kiocb_make_queue(const struct kiocb *iocb)
{
	static DEFINE_MUTEX(one_at_a_time);

	if (!raio_kiocb_lacks_queue(iocb))
		return;

	mutex_lock(&one_at_a_time);
	if (raio_kiocb_lacks_queue(iocb))
		sb_init_dio_done_wq(file_inode(iocb->ki_filp)->i_sb);
	mutex_unlock(&one_at_a_time);
}

/* As the block layer finds one for a bio, in the plug. */
static bool is_place_for(const struct request *rq, const struct kiocb *iocb,
			 const struct request_queue *q)
{
	if (!rq || rq->q != q)
		return false;
	if (iocb->ki_flags & IOCB_HIPRI)
		return rq->mq_hctx->type == HCTX_TYPE_POLL;
	return rq->mq_hctx->type == HCTX_TYPE_DEFAULT ||
	       (rq->mq_hctx->type == HCTX_TYPE_READ && !(iocb->ki_flags & IOCB_WRITE));
}

/* Are so many bytes, in @pieces of memory, surely one request? */
static bool is_one_request(const struct request_queue *q, size_t len, unsigned int pieces)
{
	const size_t most = (size_t)queue_max_sectors(q) << SECTOR_SHIFT;

	/* The end may have to be that of a physical block. */
	return len + queue_physical_block_size(q) <= most &&
	       (len >> PAGE_SHIFT) + 2 * pieces <= queue_max_segments(q) &&
	       !q->limits.chunk_sectors && (pieces == 1 || !q->limits.virt_boundary_mask);
}

/*
 * What becomes several requests isn't polled for; but the first of them could be one
 * that the plug has for what is, and would never end.
 */
void raio_kiocb_poll_one(struct kiocb *iocb, size_t len, unsigned int pieces)
{
	struct block_device *bdev = file_inode(iocb->ki_filp)->i_sb->s_bdev;

	if (!bdev || !is_one_request(bdev_get_queue(bdev), len, pieces))
		iocb->ki_flags &= ~IOCB_HIPRI;
}

/* Of which one is contiguous for who has it, if not as the kernel sees it. */
__rust_helper unsigned int raio_iov_iter_pieces(const struct iov_iter *iter)
{
	return iter_is_iovec(iter) ? iter->nr_segs : 1;
}

/* Makes of a request what the block layer has in a plug: nobody has claimed it. */
static void unclaim(struct request *rq)
{
	if (rq->rq_flags & RQF_USE_SCHED) {
		if (rq->elv.icq) {
			put_io_context(rq->elv.icq->ioc);
			rq->elv.icq = NULL;
		}
		rq->rq_flags &= ~RQF_USE_SCHED;
	}
#ifdef CONFIG_BLK_RQ_ALLOC_TIME
	rq->alloc_time_ns = 0;
#endif
}

/* Moves all of @more to the end of @list. */
static void append(struct rq_list *list, struct rq_list *more)
{
	if (rq_list_empty(more))
		return;
	if (rq_list_empty(list))
		list->head = more->head;
	else
		list->tail->rq_next = more->head;
	list->tail = more->tail;
	rq_list_init(more);
}

/*
 * Takes @nr places in the queue of its disk for a transfer, if there are so many: requests that
 * are in the task's plug then, where the block layer has its own, and finds them. Those that are
 * not used go back with the plug. Returns how many there are, all that it has in front.
 */
unsigned int raio_kiocb_reserve(const struct kiocb *iocb, unsigned int nr)
{
	struct block_device *bdev = file_inode(iocb->ki_filp)->i_sb->s_bdev;
	blk_opf_t opf = REQ_SYNC | (iocb->ki_flags & IOCB_WRITE ? REQ_OP_WRITE : REQ_OP_READ);
	struct blk_plug *plug = current->plug;
	struct rq_list had = { }, more = { };
	unsigned int n = 0, before;
	struct request_queue *q;
	struct request *rq;

	if (!plug || !bdev || !queue_is_mq(bdev_get_queue(bdev)))
		return UINT_MAX;
	q = bdev_get_queue(bdev);
	if (iocb->ki_flags & IOCB_HIPRI)
		opf |= REQ_POLLED;
	for (rq = rq_list_peek(&plug->cached_rqs); is_place_for(rq, iocb, q); rq = rq->rq_next)
		n++;
	/* So many there never are. */
	if (n >= nr || nr > q->nr_requests)
		return n;

	/*
	 * Those that are there already aren't to be had again. Behind ours nobody finds those of
	 * another kind, and others may need them.
	 */
	n = 0;
	while ((rq = rq_list_pop(&plug->cached_rqs))) {
		if (is_place_for(rq, iocb, q)) {
			rq_list_add_tail(&had, rq);
			n++;
		} else {
			blk_mq_free_request(rq);
		}
	}
	before = n;
	while (n < nr) {
		rq = blk_mq_alloc_request(q, opf, BLK_MQ_REQ_NOWAIT);
		if (IS_ERR(rq))
			break;
		/* Beside it there may be those for the rest of the call. */
		rq_list_add_head(&plug->cached_rqs, rq);
		rq_list_for_each(&plug->cached_rqs, rq) {
			unclaim(rq);
			n++;
		}
		append(&more, &plug->cached_rqs);
	}
	if (n < nr) {
		/* Who gets on instead needs them. */
		while ((rq = rq_list_pop(&more)))
			blk_mq_free_request(rq);
		n = before;
	}
	append(&plug->cached_rqs, &more);
	append(&plug->cached_rqs, &had);
	/* Nobody waits for one that goes. */
	return n < nr && blk_queue_dying(q) ? UINT_MAX : n;
}

/*
 * Would a read have its time noted in a way that can wait for a journal? As
 * touch_atime() has it, which isn't told that it must not wait. Btrfs joins a
 * transaction with lazytime, too. Through a mount that is only read none is noted.
 */
bool raio_atime_is_due(struct file *file)
{
	const struct inode *inode = file_inode(file);
	struct timespec64 now, atime, mtime, ctime;

	if (!S_ISREG(inode->i_mode) || IS_NOATIME(inode) || file->f_flags & O_NOATIME ||
	    file->f_path.mnt->mnt_flags & MNT_NOATIME ||
	    !(waits_for_times(inode) || is_btrfs(inode)))
		return false;

	atime = inode_get_atime(inode);
	now = current_time(file_inode(file));
	if (file->f_path.mnt->mnt_flags & MNT_RELATIME) {
		mtime = inode_get_mtime(inode);
		ctime = inode_get_ctime(inode);
		if (timespec64_compare(&mtime, &atime) < 0 &&
		    timespec64_compare(&ctime, &atime) < 0 &&
		    now.tv_sec - atime.tv_sec < 24 * 60 * 60)
			return false;
	}
	return !timespec64_equal(&now, &atime) && !__mnt_is_readonly(file->f_path.mnt);
}

/*
 * Has somebody a pipe locked, who may be copying from or to memory that isn't
 * there? To read or write it waits for that one, whatever was asked for.
 */
bool raio_pipe_is_busy(struct file *file)
{
	struct pipe_inode_info *pipe = file->private_data;

	return S_ISFIFO(file_inode(file)->i_mode) && mutex_is_locked(&pipe->mutex);
}

/*
 * Keeps the file system of a regular file from being frozen until raio_kiocb_end_write();
 * other files aren't on one. Returns whether it does, or -EAGAIN for @nowait if it is frozen.
 */
__rust_helper int raio_kiocb_start_write(struct kiocb *iocb, bool nowait)
{
	const struct inode *inode = file_inode(iocb->ki_filp);

	if (!S_ISREG(inode->i_mode))
		return false;
	if (!nowait) {
		kiocb_start_write(iocb);
		return true;
	}
	if (!sb_start_write_trylock(inode->i_sb))
		return -EAGAIN;
	__sb_writers_release(inode->i_sb, SB_FREEZE_WRITE);
	return true;
}

__rust_helper void raio_kiocb_end_write(struct kiocb *iocb)
{
	kiocb_end_write(iocb);
}

int raio_kiocb_set_rw_flags(struct kiocb *iocb, u32 flags, int rw)
{
	return kiocb_set_rw_flags(iocb, (__force rwf_t)flags, rw);
}

__rust_helper u16 raio_current_ioprio(void)
{
	return get_current_ioprio();
}

/* May the caller ask for it? ioprio_check_cap(), which modules can't call. */
int raio_ioprio_check(int ioprio)
{
	switch (IOPRIO_PRIO_CLASS(ioprio)) {
	case IOPRIO_CLASS_NONE:
		return IOPRIO_PRIO_LEVEL(ioprio) ? -EINVAL : 0;
	case IOPRIO_CLASS_RT:
		return capable(CAP_SYS_ADMIN) || capable(CAP_SYS_NICE) ? 0 : -EPERM;
	case IOPRIO_CLASS_BE:
	case IOPRIO_CLASS_IDLE:
		return 0;
	default:
		return -EINVAL;
	}
}

__rust_helper size_t raio_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

/* @len bytes of @vecs, from @offset in the first on: as iov_iter_bvec(), which has no offset. */
__rust_helper void raio_iov_iter_bvec(struct iov_iter *iter, int rw, const struct bio_vec *vecs,
				      unsigned long nr, size_t offset, size_t len)
{
	*iter = (struct iov_iter){
		.iter_type = ITER_BVEC,
		.data_source = rw,
		.bvec = vecs,
		.nr_segs = nr,
		.iov_offset = offset,
		.count = len,
	};
}

/* The device of @file, if direct transfers there may come to sending a bio. */
__rust_helper struct block_device *raio_direct_bdev(struct file *file)
{
	struct inode *inode = file->f_mapping->host;
	struct block_device *bdev;

	if (!sb_is_blkdev_sb(inode->i_sb) || file->f_iocb_flags != IOCB_DIRECT ||
	    !(file->f_mode & FMODE_NOWAIT))
		return NULL;
	bdev = I_BDEV(inode);
	return queue_is_mq(bdev_get_queue(bdev)) ? bdev : NULL;
}

__rust_helper bool raio_bdev_sorts(struct block_device *bdev)
{
	return READ_ONCE(bdev_get_queue(bdev)->elevator);
}

/*
 * Does the transfer need nothing but its bio: is no page of the device cached, is it of whole
 * blocks and within the device, is its memory as the device wants it, and, for a write, may the
 * device be written to as it is?
 */
__rust_helper bool raio_direct_fits(struct block_device *bdev, struct file *file, loff_t pos,
				    unsigned long addr, size_t len, bool write)
{
	struct address_space *mapping = file->f_mapping;
	loff_t size = bdev_nr_bytes(bdev);

	if (mapping->nrpages || (pos | len) & (bdev_logical_block_size(bdev) - 1) || pos < 0 ||
	    (addr | len) & bdev_dma_alignment(bdev) || !len || len > size || pos > size - len)
		return false;
	return !write || (!bdev_read_only(bdev) && !IS_SWAPFILE(mapping->host) &&
			  !bdev_max_write_streams(bdev));
}

/* Can direct transfers be polled for: by the file, and by its device as it is now? */
bool raio_file_can_iopoll(struct file *file)
{
	struct inode *inode = file->f_mapping->host;
	struct block_device *bdev;
	struct request_queue *q;
	bool can;

	/* Of others it isn't known which requests they leave to be polled for. */
	if (file->f_op->iopoll != iocb_bio_iopoll || !(file->f_iocb_flags & IOCB_DIRECT))
		return false;
	bdev = sb_is_blkdev_sb(inode->i_sb) ? I_BDEV(inode) : inode->i_sb->s_bdev;
	if (!bdev)
		return false;
	q = bdev_get_queue(bdev);
	if (!(q->limits.features & BLK_FEAT_POLL))
		return false;
	if (!queue_is_mq(q))
		return true;
	/* The driver's set of tags may go before the file, when no request can begin. */
	if (!percpu_ref_tryget_live(&q->q_usage_counter))
		return false;
	can = q->tag_set->map[HCTX_TYPE_POLL].nr_queues;
	percpu_ref_put(&q->q_usage_counter);
	return can;
}

/* Ends what a driver has found together. */
static int iopoll_end(struct io_comp_batch *iob, int found)
{
	if (rq_list_empty(&iob->req_list))
		return found;
	iob->complete(iob);
	return 1;
}

/*
 * Asks once, unless it is @over; is something found that has ended? A bio names a hardware
 * queue. That is there until its request is over, and for as long as its device can't be
 * frozen, for before queues are made fewer it is. (A bio whose data is protected may be over
 * later than its request.) The device may be changed for another path's; both are freed after
 * a grace period.
 */
__rust_helper int raio_iopoll_bio(struct bio *bio, const unsigned int *over)
{
	DEFINE_IO_COMP_BATCH(iob);
	struct request_queue *q;
	int found = 0;

	rcu_read_lock();
	q = bdev_get_queue(READ_ONCE(bio->bi_bdev));
	if (percpu_ref_tryget(&q->q_usage_counter)) {
		/* Acquire: pairs with Direct's ended(). */
		found = smp_load_acquire(over) ||
			((READ_ONCE(bio->bi_cookie) < q->nr_hw_queues || !queue_is_mq(q)) &&
			 bio_poll(bio, &iob, BLK_POLL_ONESHOT));
		percpu_ref_put(&q->q_usage_counter);
	}
	rcu_read_unlock();
	return iopoll_end(&iob, found);
}

int raio_iopoll_kiocb(struct kiocb *iocb)
{
	DEFINE_IO_COMP_BATCH(iob);

	return iopoll_end(&iob, iocb_bio_iopoll(iocb, &iob, BLK_POLL_ONESHOT));
}

/*
 * There is a bio then, as iocb_bio_iopoll() wants it, until that has ended. One that has
 * failed already may be there until somebody comes to see to it. It may be another's by
 * now; then this one has ended.
 */
__rust_helper bool raio_kiocb_is_polled(const struct kiocb *iocb)
{
	const struct bio *bio;
	bool is;

	rcu_read_lock();
	bio = READ_ONCE(iocb->private);
	is = bio && !READ_ONCE(bio->bi_status);
	rcu_read_unlock();
	return is;
}

/*
 * Its bio isn't to be merged with others, as long as that waits for the plug: they would end
 * only when this is asked for, and in vain if one is before it that isn't polled for. It
 * may have ended by now; then another's stays alone.
 */
__rust_helper void raio_kiocb_keep_apart(const struct kiocb *iocb)
{
	const struct bio *bio = READ_ONCE(iocb->private);
	struct request *last = current->plug ? current->plug->mq_list.tail : NULL;

	if (bio && last && (last->bio == bio || last->biotail == bio))
		last->cmd_flags |= REQ_NOMERGE;
}

__rust_helper unsigned long raio_jiffies(void)
{
	return jiffies;
}

__rust_helper void raio_file_accessed(struct file *file)
{
	file_accessed(file);
}

__rust_helper void raio_account_write(size_t bytes)
{
	task_io_account_write(bytes);
}

__rust_helper u8 raio_file_write_hint(struct file *file)
{
	return file_inode(file)->i_write_hint;
}

/* Is it that task which runs, and not an interrupt on top of it? */
__rust_helper bool raio_in_task(const struct task_struct *task)
{
	return task == current && in_task();
}

/* Of pseudo file systems whose methods look at current. */
bool raio_file_is_of_its_caller(struct file *file)
{
	switch (file_inode(file)->i_sb->s_magic) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case CONFIGFS_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

bool raio_file_is_fuse(struct file *file)
{
	return file_inode(file)->i_sb->s_magic == FUSE_SUPER_MAGIC;
}

__rust_helper bool raio_file_is_reg(struct file *file)
{
	return S_ISREG(file_inode(file)->i_mode);
}

__rust_helper bool raio_file_is_blk(struct file *file)
{
	return S_ISBLK(file_inode(file)->i_mode);
}

/* Those that a file sends to the task that writes, and the one that ends its waits. */
void raio_allow_signals(void)
{
	allow_kernel_signal(SIGKILL);
	allow_signal(SIGPIPE);
	allow_signal(SIGXFSZ);
}

/* Nobody may be about to send one any more. */
void raio_disallow_signals(void)
{
	disallow_signal(SIGKILL);
	disallow_signal(SIGPIPE);
	disallow_signal(SIGXFSZ);
	flush_signals(current);
}

/* What a file has sent to the task was for another. */
void raio_forward_signals(struct task_struct *leader)
{
	static const int signals[] = { SIGPIPE, SIGXFSZ };
	int i;

	if (likely(!signal_pending(current)))
		return;
	rcu_read_lock();
	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		if (sigismember(&current->pending.signal, signals[i]))
			kill_pid(task_tgid(leader), signals[i], 1);
	}
	rcu_read_unlock();
	flush_signals(current);
}

void raio_kill_task(struct task_struct *task)
{
	send_sig(SIGKILL, task, 1);
}

__rust_helper struct task_struct *raio_current(void)
{
	return current;
}
