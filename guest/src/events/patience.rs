//! The channels that the kernel has opened, and which of them stay masked for a while because
//! their peer fires them for nothing (P1).

use alloc::collections::BTreeMap;

use xen_netfront::platform::{Instant, Spurious};

/// One channel.
#[derive(Debug, Default)]
struct Channel {
    spurious: Spurious,
    masked_until: Option<Instant>,
}

/// The kernel's channels by their ports. Nothing here runs in the upcall.
#[derive(Debug, Default)]
pub struct Channels {
    by_port: BTreeMap<u32, Channel>,
    /// How many are masked for a while.
    masked: usize,
}

impl Channels {
    /// No channels.
    pub const fn new() -> Channels {
        Channels { by_port: BTreeMap::new(), masked: 0 }
    }

    /// A channel was opened; nothing is known of it.
    pub fn open(&mut self, port: u32) {
        self.close(port);
        self.by_port.insert(port, Channel::default());
    }

    /// A channel is to be closed. False if it is not the kernel's, or no longer: a port from before
    /// the domain was resumed may by now be somebody else's.
    pub fn close(&mut self, port: u32) -> bool {
        let channel = self.by_port.remove(&port);
        if channel.as_ref().is_some_and(|channel| channel.masked_until.is_some()) {
            self.masked -= 1;
        }
        channel.is_some()
    }

    /// Forgets all: the domain has been resumed, and its ports are gone.
    pub fn clear(&mut self) {
        *self = Channels::new();
    }

    /// What a port was fired for has been handled, with or without progress; without an event if
    /// it had not `fired`. Whether to unmask it now. If not, [`due`](Channels::due) says when.
    pub fn handled(&mut self, port: u32, fired: bool, progress: bool, now: Instant) -> bool {
        let Some(channel) = self.by_port.get_mut(&port) else { return fired };
        if !fired {
            channel.spurious.polled(progress);
            // A peer that means it again is listened to at once.
            let relieved = progress && channel.masked_until.take().is_some();
            self.masked -= usize::from(relieved);
            return relieved;
        }
        let delay = channel.spurious.upcall(progress);
        // Masked since it fired, so it was not being waited for.
        channel.masked_until = delay.map(|delay| now + delay);
        self.masked += usize::from(delay.is_some());
        delay.is_none()
    }

    /// Whether any port is masked for a while.
    pub fn any_masked(&self) -> bool {
        self.masked > 0
    }

    /// Gives the ports whose time has come to `unmask`, and says when that of the next will.
    pub fn due(&mut self, now: Instant, mut unmask: impl FnMut(u32)) -> Option<Instant> {
        let mut next = None;
        for (&port, channel) in &mut self.by_port {
            match channel.masked_until {
                Some(until) if until <= now => {
                    channel.masked_until = None;
                    self.masked -= 1;
                    unmask(port);
                }
                Some(until) => next = Some(next.map_or(until, |next: Instant| next.min(until))),
                None => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    fn due(channels: &mut Channels, now: u64) -> (Vec<u32>, Option<Instant>) {
        let mut ports = Vec::new();
        let next = channels.due(at(now), |port| ports.push(port));
        (ports, next)
    }

    #[test]
    fn p1_a_port_fired_for_nothing_is_unmasked_late() {
        let mut channels = Channels::new();
        for port in [5, 6, 7] {
            channels.open(port);
        }
        for port in [5, 6] {
            assert!(channels.handled(port, true, false, at(0)));
            assert!(channels.handled(port, true, false, at(0)));
            assert!(!channels.handled(port, true, false, at(0)));
            assert!(channels.any_masked());
            assert_eq!(due(&mut channels, 0), (vec![], Some(at(1))));
            assert_eq!(due(&mut channels, 1), (vec![port], None));
            assert!(!channels.any_masked());
        }
        // Twice as long the next time; a port that does its work is never held.
        assert!(!channels.handled(5, true, false, at(10)));
        for _ in 0..10 {
            assert!(channels.handled(7, true, true, at(10)));
        }
        assert_eq!(due(&mut channels, 11), (vec![], Some(at(12))));
        assert_eq!(due(&mut channels, 13), (vec![5], None));
    }

    #[test]
    fn p1_polling_is_progress_and_unmasks_nothing() {
        let mut channels = Channels::new();
        channels.open(5);
        for _ in 0..10 {
            assert!(!channels.handled(5, false, true, at(0)));
            assert!(channels.handled(5, true, false, at(0)));
        }
        assert!(!channels.any_masked());
    }

    #[test]
    fn p1_progress_by_polling_unmasks_at_once() {
        let mut channels = Channels::new();
        channels.open(5);
        for _ in 0..3 {
            channels.handled(5, true, false, at(0));
        }
        assert!(!channels.handled(5, false, false, at(0)) && channels.any_masked());
        assert!(channels.handled(5, false, true, at(0)) && !channels.any_masked());
        assert_eq!(due(&mut channels, 1000), (vec![], None));
    }

    #[test]
    fn p1_a_closed_port_is_forgotten() {
        let mut channels = Channels::new();
        channels.open(5);
        for _ in 0..3 {
            channels.handled(5, true, false, at(0));
        }
        assert!(channels.close(5));
        assert!(!channels.close(5));
        assert!(!channels.any_masked());
        assert_eq!(due(&mut channels, 1000), (vec![], None));
        channels.open(5);
        assert!(channels.handled(5, true, false, at(0)));
    }

    #[test]
    fn ports_from_before_a_resume_are_not_the_kernels() {
        let mut channels = Channels::new();
        channels.open(5);
        channels.clear();
        assert!(!channels.close(5));
        // Who still has it may as well have it unmasked: it is not open.
        assert!(channels.handled(5, true, false, at(0)));
        assert!(!channels.handled(5, false, false, at(0)));
    }
}
