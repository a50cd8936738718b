// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate's bindings lack, from `bindings/bindings_helper.h`, beside all that they
//! have. Only `kernel_ext` and the marked places of other rooms use it. The layout of what Rust
//! touches is checked against that of C.

#![allow(
    clippy::all,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

pub(crate) use kernel::bindings::*;
use kernel::ffi;

include!(concat!(
    env!("RAIO_OBJ"),
    "/rust/bindings/bindings_generated.rs"
));

macro_rules! same_layout {
    ($($ty:ident { $($field:ident = $offset:ident),* $(,)? })*) => {$(
        $(const _: () = assert!(core::mem::offset_of!($ty, $field) == $offset);)*
    )*};
}

macro_rules! same_size {
    ($($ty:ident = $size:ident),* $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$ty>() == $size);)*
    };
}

same_layout! {
    kiocb {
        ki_filp = RAIO_OFFSET_kiocb_ki_filp,
        ki_pos = RAIO_OFFSET_kiocb_ki_pos,
        ki_complete = RAIO_OFFSET_kiocb_ki_complete,
        ki_flags = RAIO_OFFSET_kiocb_ki_flags,
        ki_ioprio = RAIO_OFFSET_kiocb_ki_ioprio,
        ki_waitq = RAIO_OFFSET_kiocb_ki_waitq,
    }
    file {
        f_op = RAIO_OFFSET_file_f_op,
        f_inode = RAIO_OFFSET_file_f_inode,
        private_data = RAIO_OFFSET_file_private_data,
        f_mode = RAIO_OFFSET_file_f_mode,
        f_flags = RAIO_OFFSET_file_f_flags,
        f_mapping = RAIO_OFFSET_file_f_mapping,
        f_iocb_flags = RAIO_OFFSET_file_f_iocb_flags,
    }
    file_operations {
        fop_flags = RAIO_OFFSET_file_operations_fop_flags,
        mmap = RAIO_OFFSET_file_operations_mmap,
        poll = RAIO_OFFSET_file_operations_poll,
        read_iter = RAIO_OFFSET_file_operations_read_iter,
        write_iter = RAIO_OFFSET_file_operations_write_iter,
        fsync = RAIO_OFFSET_file_operations_fsync,
    }
    inode {
        i_mapping = RAIO_OFFSET_inode_i_mapping,
        i_size = RAIO_OFFSET_inode_i_size,
        i_private = RAIO_OFFSET_inode_i_private,
    }
    address_space {
        host = RAIO_OFFSET_address_space_host,
        a_ops = RAIO_OFFSET_address_space_a_ops,
        i_private_lock = RAIO_OFFSET_address_space_i_private_lock,
    }
    address_space_operations {
        read_folio = RAIO_OFFSET_address_space_operations_read_folio,
        dirty_folio = RAIO_OFFSET_address_space_operations_dirty_folio,
        migrate_folio = RAIO_OFFSET_address_space_operations_migrate_folio,
    }
    vm_operations_struct {
        open = RAIO_OFFSET_vm_operations_struct_open,
        close = RAIO_OFFSET_vm_operations_struct_close,
        fault = RAIO_OFFSET_vm_operations_struct_fault,
        map_pages = RAIO_OFFSET_vm_operations_struct_map_pages,
        page_mkwrite = RAIO_OFFSET_vm_operations_struct_page_mkwrite,
        mremap = RAIO_OFFSET_vm_operations_struct_mremap,
    }
    vm_area_struct {
        vm_file = RAIO_OFFSET_vm_area_struct_vm_file,
        vm_mm = RAIO_OFFSET_vm_area_struct_vm_mm,
        vm_ops = RAIO_OFFSET_vm_area_struct_vm_ops,
    }
    vfsmount {
        mnt_sb = RAIO_OFFSET_vfsmount_mnt_sb,
    }
    kmem_cache_args {
        align = RAIO_OFFSET_kmem_cache_args_align,
    }
    rcu_work {
        work = RAIO_OFFSET_rcu_work_work,
    }
    delayed_work {
        work = RAIO_OFFSET_delayed_work_work,
    }
    bio {
        bi_opf = RAIO_OFFSET_bio_bi_opf,
        bi_flags = RAIO_OFFSET_bio_bi_flags,
        bi_ioprio = RAIO_OFFSET_bio_bi_ioprio,
        bi_write_hint = RAIO_OFFSET_bio_bi_write_hint,
        bi_status = RAIO_OFFSET_bio_bi_status,
        bi_io_vec = RAIO_OFFSET_bio_bi_io_vec,
        bi_iter = RAIO_OFFSET_bio_bi_iter,
        bi_end_io = RAIO_OFFSET_bio_bi_end_io,
    }
    bio_vec {
        bv_page = RAIO_OFFSET_bio_vec_bv_page,
        bv_len = RAIO_OFFSET_bio_vec_bv_len,
        bv_offset = RAIO_OFFSET_bio_vec_bv_offset,
    }
    bvec_iter {
        bi_sector = RAIO_OFFSET_bvec_iter_bi_sector,
        bi_size = RAIO_OFFSET_bvec_iter_bi_size,
        bi_offset = RAIO_OFFSET_bvec_iter_bi_offset,
    }
    blk_plug {
        cached_rqs = RAIO_OFFSET_blk_plug_cached_rqs,
        nr_ios = RAIO_OFFSET_blk_plug_nr_ios,
    }
    block_device {
        bd_dev = RAIO_OFFSET_block_device_bd_dev,
    }
    wait_queue_entry {
        func = RAIO_OFFSET_wait_queue_entry_func,
    }
    wait_queue_head {
        lock = RAIO_OFFSET_wait_queue_head_lock,
        head = RAIO_OFFSET_wait_queue_head_head,
    }
    poll_table_struct {
        _qproc = RAIO_OFFSET_poll_table_struct__qproc,
        _key = RAIO_OFFSET_poll_table_struct__key,
    }
    ctl_table {
        procname = RAIO_OFFSET_ctl_table_procname,
        data = RAIO_OFFSET_ctl_table_data,
        maxlen = RAIO_OFFSET_ctl_table_maxlen,
        mode = RAIO_OFFSET_ctl_table_mode,
        proc_handler = RAIO_OFFSET_ctl_table_proc_handler,
    }
}

same_size! {
    kiocb = RAIO_SIZE_kiocb,
    iov_iter = RAIO_SIZE_iov_iter,
    blk_plug = RAIO_SIZE_blk_plug,
    percpu_ref = RAIO_SIZE_percpu_ref,
    poll_table_struct = RAIO_SIZE_poll_table_struct,
    work_struct = RAIO_SIZE_work_struct,
    rcu_work = RAIO_SIZE_rcu_work,
    delayed_work = RAIO_SIZE_delayed_work,
    bio = RAIO_SIZE_bio,
    bio_vec = RAIO_SIZE_bio_vec,
    bvec_iter = RAIO_SIZE_bvec_iter,
    completion = RAIO_SIZE_completion,
    mutex = RAIO_SIZE_mutex,
    wait_page_queue = RAIO_SIZE_wait_page_queue,
    wait_queue_entry = RAIO_SIZE_wait_queue_entry,
    wait_queue_head = RAIO_SIZE_wait_queue_head,
    xarray = RAIO_SIZE_xarray,
    ctl_table = RAIO_SIZE_ctl_table,
    file_operations = RAIO_SIZE_file_operations,
    address_space_operations = RAIO_SIZE_address_space_operations,
    vm_operations_struct = RAIO_SIZE_vm_operations_struct,
    kmem_cache_args = RAIO_SIZE_kmem_cache_args,
    io_event = RAIO_SIZE_io_event,
}
