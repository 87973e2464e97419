//! How many connections each source holds that have proved nothing yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of all sources. Holds at most one entry for each open connection.
#[derive(Debug)]
pub(super) struct Sources {
    share: u32,
    unproved: Mutex<HashMap<Source, u32>>,
}

impl Sources {
    /// `share`: connections without proof that one source may hold.
    pub(super) fn new(share: u32) -> Arc<Self> {
        Arc::new(Self { share, unproved: Mutex::default() })
    }

    /// Counts one more connection of this address; `None` if its source has its
    /// share already. Dropping the slot uncounts it.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<SourceSlot> {
        let source = Source::from(address);
        let mut unproved = self.lock();
        let count = unproved.get(&source).copied().unwrap_or(0);
        if count >= self.share {
            return None;
        }
        unproved.insert(source, count.saturating_add(1));
        Some(SourceSlot { sources: Arc::clone(self), source })
    }

    fn leave(&self, source: Source) {
        if let Entry::Occupied(mut entry) = self.lock().entry(source) {
            let count = entry.get().saturating_sub(1);
            if count == 0 {
                entry.remove();
            } else {
                entry.insert(count);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, u32>> {
        self.unproved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the count of its source.
#[derive(Debug)]
pub(super) struct SourceSlot {
    sources: Arc<Sources>,
    source: Source,
}

impl Drop for SourceSlot {
    fn drop(&mut self) {
        self.sources.leave(self.source);
    }
}

/// What one party can be expected to have alone: an IPv4 address, an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let sources = Sources::new(2);
        let first = sources.admit(ip("192.0.2.1"));
        let second = sources.admit(ip("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(sources.admit(ip("192.0.2.1")).is_none());
        assert!(sources.admit(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(sources.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        let sources = Sources::new(1);
        let _held = sources.admit(ip("2001:db8:1:2::1"));
        assert!(sources.admit(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(sources.admit(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn an_ipv4_address_is_one_source_in_either_spelling() {
        let sources = Sources::new(1);
        let _held = sources.admit(ip("192.0.2.1"));
        assert!(sources.admit(ip("::ffff:192.0.2.1")).is_none());
    }

    #[test]
    fn nothing_is_kept_for_sources_that_left() {
        let sources = Sources::new(1);
        drop(sources.admit(ip("192.0.2.1")));
        assert!(sources.lock().is_empty());
    }
}
