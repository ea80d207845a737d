//! Bytes in flight on a transmit ring, where there is a limit to them.

use alloc::boxed::Box;

use crate::wire::RING_SIZE;

/// How many bytes each request in flight stands for, and all of them.
pub(super) struct BytesInFlight {
    limit: u32,
    total: u32,
    /// By request id.
    each: Box<[u16; RING_SIZE]>,
}

impl BytesInFlight {
    pub(super) fn new(limit: u32) -> BytesInFlight {
        BytesInFlight { limit, total: 0, each: Box::new([0; RING_SIZE]) }
    }

    /// Whether another packet may go. One always may.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.total < self.limit.max(1)
    }

    // Called only where there is a limit: it takes no room on the path of those who have none.

    #[inline(never)]
    pub(super) fn start(&mut self, id: u16, len: u16) {
        if let Some(each) = self.each.get_mut(usize::from(id)) {
            *each = len;
            // A ring of whole pages is a megabyte.
            self.total += u32::from(len);
        }
    }

    /// `id` was in flight.
    #[inline(never)]
    pub(super) fn end(&mut self, id: u16) {
        if let Some(each) = self.each.get_mut(usize::from(id)) {
            self.total -= u32::from(core::mem::take(each));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_always_goes_and_the_limit_is_a_limit() {
        let mut bytes = BytesInFlight::new(0);
        assert!(bytes.has_room());
        bytes.start(0, 1);
        assert!(!bytes.has_room());
        bytes.end(0);
        assert!(bytes.has_room());

        let mut bytes = BytesInFlight::new(3000);
        bytes.start(7, 1500);
        assert!(bytes.has_room());
        bytes.start(255, 1500);
        assert!(!bytes.has_room());
        bytes.end(7);
        assert!(bytes.has_room());
    }
}
