//! How the digits of scalars are laid out over buckets and tables of multiples.

/// Bits of a scalar after negation, and one for the carry.
const BITS: u32 = 254;

/// Windows of `window` bits, which share sets of buckets where tables of the points' multiples allow it.
///
/// Window `w` goes to set `w % sets` with the point of table `w / sets`; table `t` holds `2^(window * sets * t) P` for each
/// point `P`, so that table 0 is the points themselves. Without tables there are as many sets as windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    window: u32,
    windows: u32,
    sets: u32,
}

impl Layout {
    /// Windows of `window` bits (2 to 22) over at most `tables` tables; `u32::MAX`: one set of buckets.
    ///
    /// # Panics
    /// If the window is out of its bounds or there is no table.
    #[must_use]
    pub fn new(window: u32, tables: u32) -> Self {
        assert!((2..=22).contains(&window) && tables > 0, "a layout within bounds");
        let windows = BITS.div_ceil(window);
        Self { window, windows, sets: windows.div_ceil(tables.min(windows)) }
    }

    /// The layout whose `windows * entries + 3 * sets * buckets` is least for `large` scalars; small ones fill few windows and
    /// are not counted.
    #[must_use]
    pub fn cheapest(large: u32, tables: u32) -> Self {
        let layouts = (4..=22).map(|window| Self::new(window, tables));
        let cost = |layout: &Self| u64::from(layout.windows) * u64::from(large) + 3 * layout.keys() as u64;
        layouts.min_by_key(cost).unwrap_or_else(|| Self::new(4, tables))
    }

    /// Bits of a window.
    #[must_use]
    pub fn window(self) -> u32 {
        self.window
    }

    /// Windows of a scalar.
    #[must_use]
    pub fn windows(self) -> u32 {
        self.windows
    }

    /// Sets of buckets.
    #[must_use]
    pub fn sets(self) -> u32 {
        self.sets
    }

    /// Tables of multiples, the points themselves being one.
    #[must_use]
    pub fn tables(self) -> u32 {
        self.windows.div_ceil(self.sets)
    }

    /// Doublings from one table to the next.
    pub(super) fn doublings(self) -> u32 {
        self.window * self.sets
    }

    /// Buckets of a set.
    pub(super) fn buckets(self) -> u32 {
        1 << (self.window - 1)
    }

    /// Buckets of all sets.
    pub(super) fn keys(self) -> usize {
        (self.sets as usize) << (self.window - 1)
    }

    /// `2^(window - 1)` in every window but the top one: makes digits signed.
    pub(super) fn offset(self) -> [u64; 4] {
        let mut words = [0; 4];
        for index in 0..self.windows - 1 {
            let bit = index * self.window + self.window - 1;
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_a_set_and_a_table_and_no_table_is_without_windows() {
        for window in 2..=22 {
            let windows = BITS.div_ceil(window);
            for tables in (1..=windows + 1).chain([u32::MAX]) {
                let layout = Layout::new(window, tables);
                assert!(layout.tables() <= tables && layout.sets() * layout.tables() >= windows);
                assert!(layout.sets() * (layout.tables() - 1) < windows, "{layout:?}");
                assert!(layout.doublings() * layout.tables() >= BITS);
            }
            assert_eq!(Layout::new(window, 1).sets(), windows);
            assert_eq!(Layout::new(window, u32::MAX).sets(), 1);
        }
    }

    #[test]
    fn tables_leave_fewer_buckets_to_weigh_and_windows_that_are_no_narrower() {
        for log in 6..=24 {
            let plain = Layout::cheapest(1 << log, 1);
            let mut before = plain;
            for tables in [2, 4, u32::MAX] {
                let layout = Layout::cheapest(1 << log, tables);
                assert!(layout.window() >= plain.window() && layout.windows() <= plain.windows());
                assert!(layout.sets() < before.sets(), "{layout:?} after {before:?}");
                before = layout;
            }
            assert_eq!(before.sets(), 1);
        }
    }
}
