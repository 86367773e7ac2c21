//! What a thread has allocated, measured by the allocator.
#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has allocated and not freed; below zero if it freed what others allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The highest value of [`LIVE`] since it was last reset.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread. A test program makes it its own with `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory;

fn count(bytes: isize) {
    // A thread at its end has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator with the same arguments. Counting allocates nothing: the counters are constants
// without a destructor.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment, but what a decoder asks for is the difference.
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work`; the most bytes that this thread had allocated meanwhile, beside what it had before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before).max(0) as usize)
}

/// Checks that [`Memory`] is this program's allocator.
///
/// # Panics
/// If it is not: nothing would be measured.
pub fn assert_installed() {
    let (kept, peak) = peak(|| std::hint::black_box(vec![1u8; 4_096]));
    assert!(peak >= kept.len(), "assay_l1_fuzz::Memory is not the #[global_allocator] of this test");
}
