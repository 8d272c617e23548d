//! The allocator of the binary and the benchmarks, told to keep what is freed for a while.
//!
//! Training makes and drops large tensors all the time. Giving their pages back to the system at once and faulting them in
//! again costs a tenth of a step on a CPU.

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc's `mi_option_t`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds.
const KEEP: std::ffi::c_long = 10_000;

/// Keeps freed pages for ten seconds. Call it first thing in `main`, where [`Allocator`] is the global allocator.
#[allow(unsafe_code)]
pub fn keep_freed_pages() {
    // SAFETY: mimalloc reads its options when it frees; setting one is only unsafe against other threads that set the same,
    // and there are none yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP) }
}
