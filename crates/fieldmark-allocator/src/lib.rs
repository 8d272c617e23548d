//! The allocator of the `fieldmark` command and the benchmarks: mimalloc, set to keep freed pages.
//!
//! Training allocates and frees large tensors all the time. Returning their pages to the system and faulting them in
//! again costs up to half of a training step on a CPU. With this allocator, a process keeps the memory of its largest
//! step until it ends.

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` in mimalloc's `mi_option_t`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Keep freed pages for ever. Other values are milliseconds.
const KEEP: std::ffi::c_long = -1;

/// Tells mimalloc to keep freed pages. Call it first in `main`, in a program whose global allocator is [`Allocator`].
#[allow(unsafe_code)]
pub fn keep_freed_pages() {
    // SAFETY: mimalloc reads the option when it frees memory. Setting it is unsafe only if another thread sets it at
    // the same time, and there are no other threads yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP) }
}
