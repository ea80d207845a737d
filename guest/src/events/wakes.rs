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

    /// Who waits for a port that has fired, from number `next` on, which moves behind it: to be woken
    /// when nothing here is borrowed any more.
    pub fn next(&self, next: &mut usize, fired: impl Fn(u32) -> bool) -> Option<Wake> {
        let mut rest = self.0.iter().skip(*next);
        rest.find_map(|(port, wake)| {
            *next += 1;
            fired(*port).then(|| wake.clone())
        })
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
        fn wake(wakes: &Wakes, fired: impl Fn(u32) -> bool) {
            let mut next = 0;
            while let Some(wake) = wakes.next(&mut next, &fired) {
                wake.wake();
            }
        }
        let mut wakes = Wakes::new();
        wakes.insert(3, first);
        wakes.insert(4, second.clone());
        wake(&wakes, |port| port == 4);
        assert_eq!(woken(), [0, 1]);
        // The port is another's now, and then nobody's.
        second.register(&Waker::from(two.clone()));
        wakes.insert(3, second.clone());
        wakes.remove(4);
        wake(&wakes, |_| true);
        assert_eq!(woken(), [0, 2]);
        second.register(&Waker::from(two.clone()));
        wakes.clear();
        wake(&wakes, |_| true);
        assert_eq!(woken(), [0, 2]);
    }
}
