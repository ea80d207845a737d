//! Whom the events of a port wake, for kernels whose tasks wait.

use alloc::vec::Vec;

use packet_views::Wake;

/// A port and who waits for its events; a few of them.
#[derive(Debug, Default)]
pub struct Wakes(Vec<(u32, Wake)>);

impl Wakes {
    /// None.
    pub const fn new() -> Wakes {
        Wakes(Vec::new())
    }

    /// From now on, events on `port` wake `wake`. Allocates now and then.
    pub fn insert(&mut self, port: u32, wake: Wake) {
        self.remove(port);
        self.0.push((port, wake));
    }

    /// Events on `port` wake nobody.
    pub fn remove(&mut self, port: u32) {
        self.0.retain(|(other, _)| *other != port);
    }

    /// No port is open any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Wakes whoever waits for one of the ports that have fired.
    pub fn wake(&self, fired: impl Fn(u32) -> bool) {
        self.0.iter().filter(|(port, _)| fired(*port)).for_each(|(_, wake)| wake.wake());
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::task;
    use core::sync::atomic::{AtomicU32, Ordering};
    use core::task::Waker;

    use super::*;

    struct Count(AtomicU32);

    impl task::Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waiting() -> (Arc<Count>, Wake) {
        let (count, wake) = (Arc::new(Count(AtomicU32::new(0))), Wake::new());
        wake.register(&Waker::from(count.clone()));
        (count, wake)
    }

    #[test]
    fn an_event_wakes_whom_its_port_was_opened_for() {
        let ((one, first), (two, second)) = (waiting(), waiting());
        let woken = || [&one, &two].map(|count| count.0.load(Ordering::Relaxed));
        let mut wakes = Wakes::new();
        wakes.insert(3, first);
        wakes.insert(4, second.clone());
        wakes.wake(|port| port == 4);
        assert_eq!(woken(), [0, 1]);
        // The port is another's now, and then nobody's.
        second.register(&Waker::from(two.clone()));
        wakes.insert(3, second.clone());
        wakes.remove(4);
        wakes.wake(|_| true);
        assert_eq!(woken(), [0, 2]);
        second.register(&Waker::from(two.clone()));
        wakes.clear();
        wakes.wake(|_| true);
        assert_eq!(woken(), [0, 2]);
    }
}
