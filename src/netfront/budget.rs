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
//! much larger. What they pass on, received and not yet sent, is sending's.

use xen_grant::{Frame, FramePool, Reservation, ReserveError};

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
    /// Pages in quarantine since an earlier connection, drawn to make up for them.
    made_up: u32,
}

/// The pages that a device with this configuration is promised.
pub(super) fn least_pages(config: &Config) -> usize {
    let queue = 2 + floor(config.rx_floor, config.rx_ceiling) as usize;
    config.most_queues() as usize * queue + SENDING as usize
}

impl Budget {
    pub(super) fn new(pool: &FramePool, config: &Config) -> Result<Budget, ReserveError> {
        let reservation = pool.reserve(least_pages(config))?;
        let promised = reservation.pages();
        Ok(Budget { reservation, promised, sending: SENDING, made_up: 0 })
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
            // It may hold many more, that were received and are passed on.
            self.sending += self.reservation.draw(held + STEP - self.sending);
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

    /// There is no connection any more: nothing is needed but what was promised.
    pub(super) fn settle(&mut self) {
        (self.sending, self.made_up) = (SENDING, 0);
        self.give_back(self.reservation.pages() - self.promised);
    }

    /// A connection begins, and the peer has not let go of so many pages of earlier ones: draws as many
    /// in their place. Returns how many are missing.
    pub(super) fn make_up_for(&mut self, quarantined: usize) -> u32 {
        let kept = u32::try_from(quarantined).unwrap_or(u32::MAX);
        self.made_up = self.draw(kept);
        kept - self.made_up
    }

    /// One of those is ours again.
    pub(super) fn came_home(&mut self) {
        if let Some(left) = self.made_up.checked_sub(1) {
            self.made_up = left;
            self.give_back(1);
        }
    }
}
