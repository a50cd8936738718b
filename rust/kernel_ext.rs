// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate lacks, written as if to go there: safe types over C interfaces, with
//! the `unsafe` that they need. Nothing here knows of contexts, requests or rings.

pub(crate) mod bio;
pub(crate) mod completion;
pub(crate) mod eventfd;
pub(crate) mod fifo;
pub(crate) mod file_io;
pub(crate) mod file_poll;
pub(crate) mod folio;
pub(crate) mod hash_table;
pub(crate) mod id_table;
pub(crate) mod identity;
pub(crate) mod kmem_cache;
pub(crate) mod locked;
pub(crate) mod misc;
pub(crate) mod mm;
pub(crate) mod module;
pub(crate) mod mutex;
pub(crate) mod page_wait;
pub(crate) mod percpu_ref;
pub(crate) mod pinned;
pub(crate) mod plug;
pub(crate) mod pm;
pub(crate) mod pseudo_fs;
pub(crate) mod rcu_work;
pub(crate) mod sigmask;
pub(crate) mod sysctl;
pub(crate) mod task;
pub(crate) mod user;
pub(crate) mod wait;
pub(crate) mod work;
