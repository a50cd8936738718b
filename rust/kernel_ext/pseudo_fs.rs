// SPDX-License-Identifier: GPL-2.0

//! Files that nobody opens, and that consist of pages which user space maps and the kernel may move.
//!
//! C headers: `include/linux/anon_inodes.h`, `include/linux/pagemap.h`, `include/linux/migrate.h`.
//!
//! # Who keeps the module
//!
//! Not the files. They are on a file system of the kernel's own, and when a [`PageFile`] is dropped
//! what is left of it refers to nothing of the module any more, since the last reference may be
//! that of a task which has just unmapped it, and be given up at any time. So no file keeps
//! `rmmod` waiting. While there are mappings, which do refer to the module, their owner keeps it,
//! see [`PageOwner`].
//!
//! A file is mapped once. `remap_file_pages(2)` unmaps before it maps again, so that what came
//! then would be a mapping after the last one.
//!
//! # Locks
//!
//! `i_private_lock` of the file's mapping guards who owns the pages ([`PageFile::connect`]). It is
//! held around [`PageOwner::mapped`] and [`PageOwner::unmapped`], and nothing of memory management
//! nests inside of it.
//! [`PageOwner::migrate`] is called without it, with both folios locked.

use super::folio::OwnedFolio;
use crate::bindings;
use core::{marker::PhantomData, ptr, ptr::NonNull};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi,
    fs::File,
    mm::virt::{
        VmaNew,
        VmaRef, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
};

/// Where the files are: the file system of anonymous inodes, kept by a file on it.
///
/// # Invariants
///
/// The file is one that `anon_inode_getfile()` returned, and `self` owns a reference to it.
pub(crate) struct PseudoFs(NonNull<bindings::file>);

// SAFETY: Only the mount and the superblock are read, which don't change.
unsafe impl Send for PseudoFs {}
// SAFETY: As above.
unsafe impl Sync for PseudoFs {}

impl PseudoFs {
    const FILE_OPS: bindings::file_operations = pin_init::zeroed();

    /// Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Name and operations are constants.
        let file = from_err_ptr(unsafe {
            bindings::anon_inode_getfile(
                c"[raio]".as_char_ptr(),
                &Self::FILE_OPS,
                ptr::null_mut(),
                bindings::O_RDWR as ffi::c_int,
            )
        })?;
        // INVARIANT: Just made.
        // SAFETY: Not an error, so not null.
        Ok(Self(unsafe { NonNull::new_unchecked(file) }))
    }

    fn mount(&self) -> *mut bindings::vfsmount {
        // SAFETY: A live file, by the type invariant, whose path doesn't change.
        unsafe { bindings::raio_file_mount(self.0.as_ptr()) }
    }
}

impl Drop for PseudoFs {
    fn drop(&mut self) {
        // Now and not when the task returns to user space, for its operations may be gone by then.
        // SAFETY: The reference is ours, by the type invariant. No lock is held.
        unsafe { bindings::__fput_sync(self.0.as_ptr()) }
    }
}

/// Who has the pages of a [`PageFile`].
///
/// As long as there are mappings it must see to it that the module stays, and after the last one has
/// gone until `mm::quiesce()` has returned.
pub(crate) trait PageOwner: Send + Sync + Sized + 'static {
    /// The kernel wants to move a page. An error leaves it where it is.
    ///
    /// Both folios are locked. The caller may hold locks of memory management, so the owner's may
    /// only be tried for.
    fn migrate(&self, page: Migration<'_>) -> Result;

    /// User space has moved the mapping of `len` bytes to `address` by `mremap(2)`. An error moves
    /// it back. `mmap_lock` is held.
    fn moved(&self, address: usize, len: usize) -> Result;

    /// There is a mapping more, or a part of one that was split. `i_private_lock` is held: this
    /// must not sleep.
    fn mapped(&self);

    /// There is one less: it was unmapped, its process has ended or runs another program.
    /// `i_private_lock` is held: this must not sleep.
    fn unmapped(&self);
}

/// A file of pages.
///
/// # Invariants
///
/// `file` is a file made by [`Self::new`] with the operations below. Its inode's `i_private` is
/// null or points to the `T` of an [`Arc`] that isn't dropped before `i_private` is null again;
/// both only change under its mapping's `i_private_lock`.
pub(crate) struct PageFile<T> {
    file: ARef<File>,
    _owner: PhantomData<T>,
}

impl<T: PageOwner> PageFile<T> {
    const FILE_OPS: bindings::file_operations = bindings::file_operations {
        mmap: Some(Self::mmap),
        ..pin_init::zeroed()
    };

    const PAGE_OPS: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(Self::read_folio),
        dirty_folio: Some(bindings::noop_dirty_folio),
        migrate_folio: Some(Self::migrate_folio),
        ..pin_init::zeroed()
    };

    const VM_OPS: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(bindings::filemap_fault),
        map_pages: Some(bindings::filemap_map_pages),
        page_mkwrite: Some(bindings::filemap_page_mkwrite),
        mremap: Some(Self::mremap),
        open: Some(Self::open),
        close: Some(Self::close),
        ..pin_init::zeroed()
    };

    /// A file of `pages` pages, none of which is there yet. Fails with `ENOMEM`.
    pub(crate) fn new(fs: &PseudoFs, name: &'static CStr, pages: usize) -> Result<Self> {
        let mount = fs.mount();
        // SAFETY: `fs` keeps the mount.
        let inode = from_err_ptr(unsafe { bindings::alloc_anon_inode((*mount).mnt_sb) })?;
        // SAFETY: The inode is new and only ours. The operations are constants.
        unsafe {
            (*(*inode).i_mapping).a_ops = &Self::PAGE_OPS;
            (*inode).i_size = (pages << kernel::page::PAGE_SHIFT) as i64;
        }
        // SAFETY: The inode is ours to give away, the mount is kept by `fs`, the name and the
        // operations are constants.
        let file = from_err_ptr(unsafe {
            bindings::alloc_file_pseudo(
                inode,
                mount,
                name.as_char_ptr(),
                bindings::O_RDWR as ffi::c_int,
                &Self::FILE_OPS,
            )
        });
        let file = file.map_err(|_| {
            // SAFETY: It was not given away, so the reference is still ours.
            unsafe { bindings::iput(inode) };
            // Too many open files is what it may be too: nobody asked to open one.
            ENOMEM
        })?;
        // INVARIANT: `i_private` of a new inode is null.
        Ok(Self {
            // SAFETY: `alloc_file_pseudo` gave us the reference, and no thread is in the middle of
            // using the position of a file that has no descriptor.
            file: unsafe { ARef::from_raw(NonNull::new_unchecked(file.cast())) },
            _owner: PhantomData,
        })
    }

    fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: A file has a mapping for as long as it lives.
        unsafe { (*self.file.as_ptr()).f_mapping }
    }

    /// Runs `f` with the place that says who owns the pages.
    ///
    /// # Safety
    ///
    /// `mapping` must be of a live file of this type.
    unsafe fn with_owner<R>(
        mapping: *mut bindings::address_space,
        f: impl FnOnce(&mut *mut T) -> R,
    ) -> R {
        // SAFETY: The caller says that it lives. `i_private` is ours and guarded by this lock, so
        // the reference to it is the only one.
        unsafe {
            let lock = &raw mut (*mapping).i_private_lock;
            bindings::spin_lock(lock);
            let ret = f(&mut *(&raw mut (*(*mapping).host).i_private).cast::<*mut T>());
            bindings::spin_unlock(lock);
            ret
        }
    }

    /// Who owns the pages, if anybody does.
    ///
    /// # Safety
    ///
    /// `mapping` must be of a live file of this type.
    unsafe fn owner(mapping: *mut bindings::address_space) -> Option<Arc<T>> {
        // SAFETY: As the caller says. By the type invariant the owner points to the inside of an
        // `Arc` that lives as long as the lock is held.
        unsafe {
            Self::with_owner(mapping, |slot| {
                NonNull::new(*slot).map(|owner| Arc::from(ArcBorrow::from_raw(owner.as_ptr())))
            })
        }
    }

    /// Runs `f` while the owner isn't told of mappings.
    pub(crate) fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: `self.file` lives.
        unsafe { Self::with_owner(self.mapping(), |_| f()) }
    }

    /// From now on `owner` is asked before a page is moved, and told of mappings; until now none is
    /// moved.
    ///
    /// # Safety
    ///
    /// [`Self::disconnect`] must be called before the last reference to `owner` is dropped, and
    /// before anything goes that its [`PageOwner`] methods rely on.
    pub(crate) unsafe fn connect(&self, owner: &Arc<T>) {
        // INVARIANT: The caller promises what is asked for.
        // SAFETY: `self.file` lives.
        unsafe { Self::with_owner(self.mapping(), |slot| *slot = Arc::as_ptr(owner).cast_mut()) }
    }

    /// From now on no page is moved, and nobody finds the owner from here. A move that is under way
    /// goes on, and has a reference of its own to the owner.
    pub(crate) fn disconnect(&self) {
        // SAFETY: `self.file` lives.
        unsafe { Self::with_owner(self.mapping(), |slot| *slot = ptr::null_mut()) }
    }

    /// Makes page number `index`, zeroed, and keeps it there. If it is `movable`, it may lie where
    /// memory is to be offlined. Fails with `ENOMEM`.
    pub(crate) fn populate(&self, index: usize, movable: bool) -> Result<OwnedFolio> {
        // SAFETY: The mapping of a live file.
        let folio =
            from_err_ptr(unsafe { bindings::raio_ring_folio(self.mapping(), index, movable) })?;
        // SAFETY: Not an error, so not null; the reference is ours; all memory is directly mapped.
        Ok(unsafe { OwnedFolio::from_raw(NonNull::new_unchecked(folio)) })
    }

    /// Takes the pages away from the file and from everybody who maps it.
    pub(crate) fn truncate(&self) {
        // SAFETY: The inode of a live file. Nobody else changes its size.
        unsafe { bindings::truncate_setsize((*self.mapping()).host, 0) }
    }

    /// Maps the first `len` bytes for the current process, to read and write, and returns where. To
    /// be called once: `ENODEV` after that.
    ///
    /// Fails as `mmap(2)` does.
    pub(crate) fn map(&self, len: usize) -> Result<usize> {
        // SAFETY: A live file.
        let addr = unsafe {
            bindings::vm_mmap(
                self.file.as_ptr(),
                0,
                len,
                bindings::RAIO_PROT_RW,
                bindings::RAIO_MAP_SHARED,
                0,
            )
        };
        from_err_ptr(ptr::without_provenance_mut::<u8>(addr)).map(|ptr| ptr.addr())
    }

    /// # Safety
    ///
    /// To be called by the C side only, for a file made by [`Self::new`].
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> ffi::c_int {
        // SAFETY: The area is being set up.
        let new = unsafe { VmaNew::from_raw(vma) };
        if let Err(e) = new.try_clear_mayexec() {
            return e.to_errno();
        }
        new.set_dontexpand();
        new.set_dontcopy();
        // SAFETY: As above. The operations are a constant, and the area has its file. Who else wants
        // to map it waits for `mmap_lock` before looking at its operations.
        unsafe {
            bindings::raio_file_map_no_more(file);
            (*vma).vm_ops = &Self::VM_OPS;
            Self::tell_owner(vma, T::mapped);
        }
        0
    }

    /// # Safety
    ///
    /// To be called by the C side only, with an area that [`Self::mmap`] has set up.
    unsafe extern "C" fn mremap(vma: *mut bindings::vm_area_struct) -> ffi::c_int {
        // SAFETY: The area is live and keeps its file.
        let (address, len, owner) = unsafe {
            let new = VmaRef::from_raw(vma);
            let owner = Self::owner((*(*vma).vm_file).f_mapping);
            (new.start(), new.end() - new.start(), owner)
        };
        let moved = owner
            .ok_or(EINVAL)
            .and_then(|owner| owner.moved(address, len));
        moved.err().map_or(0, |e| e.to_errno())
    }

    /// # Safety
    ///
    /// To be called by the C side only, with an area that [`Self::mmap`] has set up.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The area keeps its file.
        unsafe { Self::tell_owner(vma, T::mapped) }
    }

    /// # Safety
    ///
    /// To be called by the C side only, with an area that [`Self::mmap`] has set up.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The area keeps its file.
        unsafe { Self::tell_owner(vma, T::unmapped) }
    }

    /// # Safety
    ///
    /// `vma` must be a live area that [`Self::mmap`] has set up.
    unsafe fn tell_owner(vma: *mut bindings::vm_area_struct, f: impl FnOnce(&T)) {
        // SAFETY: The area keeps its file. By the type invariant the owner, if there is one, lives
        // as long as the lock is held.
        unsafe {
            Self::with_owner((*(*vma).vm_file).f_mapping, |slot| {
                if let Some(owner) = slot.as_ref() {
                    f(owner);
                }
            });
        }
    }

    /// All pages of a file in use are there, so a fault that wants to read one raced with
    /// [`Self::truncate`].
    ///
    /// # Safety
    ///
    /// To be called by the C side only, with a locked folio.
    unsafe extern "C" fn read_folio(
        _file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> ffi::c_int {
        // SAFETY: It is locked, and to unlock it is this function's duty.
        unsafe { bindings::folio_unlock(folio) };
        EIO.to_errno()
    }

    /// # Safety
    ///
    /// To be called by the C side only, with the mapping of a file made by [`Self::new`].
    unsafe extern "C" fn migrate_folio(
        mapping: *mut bindings::address_space,
        dst: *mut bindings::folio,
        src: *mut bindings::folio,
        _mode: bindings::migrate_mode,
    ) -> ffi::c_int {
        // SAFETY: The inode lives while one of its folios is locked.
        let Some(owner) = (unsafe { Self::owner(mapping) }) else {
            return EINVAL.to_errno();
        };
        // SAFETY: Neither is null.
        let (dst, src) = unsafe { (NonNull::new_unchecked(dst), NonNull::new_unchecked(src)) };
        // INVARIANT: The C side calls this with both locked and `src` in `mapping`.
        let page = Migration {
            mapping,
            dst,
            src,
            _locked: PhantomData,
        };
        owner.migrate(page).err().map_or(0, |e| e.to_errno())
    }
}

impl<T> Drop for PageFile<T> {
    fn drop(&mut self) {
        // SAFETY: A live file. It has no pages and no mappings any more, so nobody uses its
        // operations.
        unsafe { bindings::raio_file_disown(self.file.as_ptr()) }
    }
}

/// A page that is about to be moved.
///
/// # Invariants
///
/// `src` is a locked folio of `mapping` and `dst` a locked new one of the same size; both have a
/// reference for `'a`.
pub(crate) struct Migration<'a> {
    mapping: *mut bindings::address_space,
    dst: NonNull<bindings::folio>,
    src: NonNull<bindings::folio>,
    _locked: PhantomData<&'a ()>,
}

impl<'a> Migration<'a> {
    /// Its number in the file.
    pub(crate) fn index(&self) -> usize {
        // SAFETY: The index of a locked folio doesn't change.
        unsafe { bindings::raio_folio_index(self.src.as_ptr()) }
    }

    /// Puts the new page in the old one's place in the page cache, if `held` is the owner's
    /// reference to the old one. `EAGAIN` if it isn't, or if somebody else uses the page.
    pub(crate) fn replace(self, held: &OwnedFolio) -> Result<Replaced<'a>> {
        if held.as_ptr() != self.src.as_ptr() {
            return Err(EAGAIN);
        }
        // SAFETY: `dst` has a reference, by the type invariant.
        let new = unsafe { OwnedFolio::get(self.dst) };
        // One more reference than the page cache's is expected: the owner's.
        // SAFETY: Both are locked, by the type invariant.
        to_result(unsafe {
            bindings::folio_migrate_mapping(self.mapping, self.dst.as_ptr(), self.src.as_ptr(), 1)
        })?;
        Ok(Replaced { page: self, new })
    }
}

/// A page that was replaced in the page cache, with the contents still in the old one.
#[must_use]
pub(crate) struct Replaced<'a> {
    page: Migration<'a>,
    new: OwnedFolio,
}

impl Replaced<'_> {
    /// Copies the contents and puts the new page in `held`; returns the old one, to be dropped when
    /// the lock is released that keeps everybody in the kernel from writing to either.
    pub(crate) fn finish(self, held: &mut OwnedFolio) -> OwnedFolio {
        let (dst, src) = (self.page.dst.as_ptr(), self.page.src.as_ptr());
        // SAFETY: Both are locked and referenced, by the invariant of `Migration`.
        unsafe {
            bindings::folio_copy(dst, src);
            bindings::folio_migrate_flags(dst, src);
        }
        core::mem::replace(held, self.new)
    }
}
