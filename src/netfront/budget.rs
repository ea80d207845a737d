//! How a device shares its pool: among receiving, sending, and the other devices.
//!
//! ```text
//!   promised at `open`                                            drawn while they are nobody's
//!   | rings | floor of each queue | SENDING |                     | receiving |  sending  |
//!              posted                at hand, or in flight          a burst      bulk
//! ```
//!
//! Posted pages come home only with packets in them, and a layer above may need a page to answer before
//! it lets go of what it received. So receiving takes no page that sending was promised, and no device
//! one that another was. What the layers above hold is on nobody's account; the pool has to be that
//! much larger.

use xen_grant::{Frame, FramePool, Overbooked, Reservation};

use super::config::Config;
use super::target::floor;

/// Pages that a device always has to send with: as many segments of 1448 bytes as the largest packet is
/// cut into, and some that wait for their first byte.
pub(super) const SENDING: u32 = 64;

/// How many pages sending draws at a time.
const STEP: u32 = 32;

pub(super) struct Budget {
    reservation: Reservation,
    promised: u32,
    /// How many pages sending may hold.
    sending: u32,
    /// Drawn in the place of pages that the peer has kept since an earlier connection.
    standing_in: u32,
}

/// The pages that a device with this configuration is promised.
pub(super) fn least_pages(config: &Config) -> usize {
    let queue = 2 + floor(config.rx_floor, config.rx_ceiling) as usize;
    config.most_queues() as usize * queue + SENDING as usize
}

impl Budget {
    pub(super) fn new(pool: &FramePool, config: &Config) -> Result<Budget, Overbooked> {
        let reservation = pool.reserve(least_pages(config))?;
        let promised = reservation.pages();
        Ok(Budget { reservation, promised, sending: SENDING, standing_in: 0 })
    }

    #[inline]
    pub(super) fn pool(&self) -> &FramePool {
        self.reservation.pool()
    }

    /// Up to `most` more pages than were promised, for a queue to post.
    pub(super) fn draw(&mut self, most: u32) -> u32 {
        self.reservation.draw(most)
    }

    pub(super) fn give_back(&mut self, pages: u32) {
        self.reservation.give_back(pages);
    }

    /// A frame to send, where `held` are at hand or in flight already.
    pub(super) fn frame_to_send(&mut self, held: u32) -> Option<Frame> {
        if held >= self.sending {
            self.sending += self.reservation.draw(STEP);
        }
        if held < self.sending { self.pool().take() } else { None }
    }

    /// Sending holds no more than so many now.
    pub(super) fn sends_with(&mut self, held: u32) {
        let surplus = self.sending.saturating_sub(SENDING.max(held + STEP));
        if surplus > 0 {
            self.sending -= surplus;
            self.give_back(surplus);
        }
    }

    /// A connection has ended: nothing more is needed than was promised, but for pages that the peer
    /// does not let go of. Returns how many of those nothing was left for.
    pub(super) fn settle(&mut self, quarantined: usize) -> u32 {
        self.sending = SENDING;
        self.give_back(self.reservation.pages() - self.promised);
        let kept = u32::try_from(quarantined).unwrap_or(u32::MAX);
        self.standing_in = self.draw(kept);
        kept - self.standing_in
    }

    /// A page that the peer had kept is ours again, and no queue has lacked it.
    pub(super) fn regained(&mut self) {
        let surplus = self.standing_in.min(1);
        self.standing_in -= surplus;
        self.give_back(surplus);
    }
}
