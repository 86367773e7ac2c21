//! Counts the connections of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections by address; there are no more entries than connections.
pub(super) struct Addresses {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// A connection that is counted until this is dropped.
pub(super) struct Seat {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Addresses {
    pub(super) fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max: max.max(1) }
    }

    /// Counts a connection; `None` if its address has as many as it may have.
    pub(super) fn seat(&self, address: IpAddr) -> Option<Seat> {
        let address = network(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Seat { counts: Arc::clone(&self.counts), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What one peer can choose addresses from freely counts as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let addresses = Addresses::new(2);
        let seat = |text: &str| addresses.seat(text.parse().unwrap());
        let (first, second) = (seat("10.0.0.1"), seat("::ffff:10.0.0.1"));
        assert!(first.is_some() && second.is_some() && seat("10.0.0.1").is_none());
        let others = (seat("10.0.0.2"), seat("2001:db8::1"), seat("2001:db8::2:1"));
        assert!(others.0.is_some() && others.1.is_some() && others.2.is_some());
        assert!(seat("2001:db8::3").is_none(), "the same network");
        drop((first, second));
        assert!(seat("10.0.0.1").is_some());
        drop(others);
        assert!(addresses.counts.lock().is_empty(), "nothing is remembered of those that are gone");
    }
}
