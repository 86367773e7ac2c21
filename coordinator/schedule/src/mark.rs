//! Marks on paths that are taken seldom, for tests that show that the simulator takes them.

#[cfg(feature = "simulate")]
thread_local! {
    static MARKS: std::cell::RefCell<std::collections::BTreeMap<&'static str, u64>> =
        const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

/// Says that this path was taken. Nothing without the feature `simulate`; never part of the state.
#[inline]
pub(crate) fn mark(_name: &'static str) {
    #[cfg(feature = "simulate")]
    MARKS.with_borrow_mut(|marks| *marks.entry(_name).or_default() += 1);
}

/// How often each marked path was taken on this thread.
#[cfg(feature = "simulate")]
pub fn marks() -> std::collections::BTreeMap<&'static str, u64> {
    MARKS.with_borrow(Clone::clone)
}
