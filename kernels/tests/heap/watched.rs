//! An allocator that looks at the blocks that are given back.
#![allow(unsafe_code, reason = "an allocator; every block says why it is sound")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// Blocks below this are not asked to be zero: they hold addresses and the state of threads.
const LARGE: usize = 4 << 10;

/// The system's allocator; hands out zeros, so that nothing of an earlier owner is found.
struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

static WATCHING: AtomicBool = AtomicBool::new(false);
/// What is looked for, in order.
static WORDS: RwLock<Vec<u64>> = RwLock::new(Vec::new());
static FOUND: AtomicUsize = AtomicUsize::new(0);
static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static DIRTY: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// One test at a time: what others give back is seen too.
static TURN: Mutex<()> = Mutex::new(());

// SAFETY: every call goes to the system's allocator with the layout it came with.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise about the layout.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if WATCHING.load(Ordering::Acquire) {
            // SAFETY: the block is the caller's until it is given back below. It was handed out as zeros.
            look(unsafe { std::slice::from_raw_parts(block, layout.size()) }, layout.align() >= 4);
        }
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about the block and its layout.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Bytes may be anything's, text for one: only blocks of `numbers` are asked to be zero.
fn look(block: &[u8], numbers: bool) {
    let Ok(words) = WORDS.try_read() else { return };
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let found = block.as_chunks().0.iter().filter(|bytes| words.binary_search(&word(bytes)).is_ok()).count();
    FOUND.fetch_add(found, Ordering::Relaxed);
    if numbers && block.len() >= LARGE {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        DIRTY.fetch_add(usize::from(block.iter().any(|byte| *byte != 0)), Ordering::Relaxed);
    }
}

/// What was seen in the blocks that were given back.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Words that were looked for.
    pub(crate) words: usize,
    /// Blocks of 4 KiB and more.
    pub(crate) blocks: usize,
    /// Those of them that were not all zeros.
    pub(crate) dirty: usize,
}

/// The most bytes that `work` had allocated at a time.
pub(crate) fn peak(work: impl FnOnce()) -> u64 {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before) as u64
}

/// For a test to hold from its begin to its end.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A watch over all threads.
pub(crate) struct Watch;

impl Watch {
    /// Starts to look for `words`.
    pub(crate) fn start(words: &[u64]) -> Self {
        let mut words = words.to_vec();
        words.sort_unstable();
        *WORDS.write().unwrap_or_else(PoisonError::into_inner) = words;
        for count in [&FOUND, &BLOCKS, &DIRTY] {
            count.store(0, Ordering::Relaxed);
        }
        WATCHING.store(true, Ordering::Release);
        Self
    }

    pub(crate) fn end(self) -> Seen {
        WATCHING.store(false, Ordering::Release);
        let [words, blocks, dirty] = [&FOUND, &BLOCKS, &DIRTY].map(|count| count.load(Ordering::Relaxed));
        Seen { words, blocks, dirty }
    }
}
