//! The allocator of the binary and the benchmarks, told to keep what is freed.
//!
//! Training makes and drops large tensors all the time. Giving their pages back to the system and faulting them in again
//! costs up to half of a step on a CPU; so a process keeps the memory of its largest step until it ends.

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc's `mi_option_t`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// For ever; else milliseconds.
const KEEP: std::ffi::c_long = -1;

/// Keeps freed pages. Call it first thing in `main`, where [`Allocator`] is the global allocator.
#[allow(unsafe_code)]
pub fn keep_freed_pages() {
    // SAFETY: mimalloc reads its options when it frees; setting one is only unsafe against other threads that set the same,
    // and there are none yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP) }
}
