//! A kernel that keeps its network cards as objects: each a `Box<dyn FrameDevice>` that sends and
//! receives plain Ethernet frames, whatever is behind it.
//!
//! ```sh
//! cargo run --example objects
//! ```

use std::collections::VecDeque;
use std::error::Error;

use packet_views::copying::{Copying, RawIo};
use packet_views::device::{Link, WriteError};
use packet_views::frames::{FrameDevice, Frames};
use packet_views::header::MacAddr;
use xen_netfront::packet as packet_views;
use xen_sim::Next;
use xen_sim::mirror::Mirror;

/// Frames that each card sends.
const COUNT: usize = 500;

/// A card of another kind: what it is given, it gives back.
#[derive(Default)]
struct Loopback(VecDeque<Vec<u8>>);

impl RawIo for Loopback {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        let frame = self.0.pop_front()?;
        target.get_mut(..frame.len())?.copy_from_slice(&frame);
        Some(frame.len())
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        let has_room = self.0.len() < 8;
        if has_room {
            self.0.push_back(frame.to_vec());
        }
        has_room
    }
}

/// Frame number `nth`: of any length that there is.
fn frame(nth: usize) -> Vec<u8> {
    (0..60 + nth * 7 % 1450).map(|at| (at ^ nth) as u8).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = Mirror::new(1)?;
    let loopback = Copying::new(Loopback::default(), MacAddr([2, 0, 0, 0, 0, 1]), 1500);
    let mut cards: Vec<(Box<dyn FrameDevice>, usize, usize)> =
        vec![(Box::new(Frames::new(loopback)), 0, 0), (Box::new(Frames::new(host.open()?)), 0, 0)];
    let mut problem = None;
    let mut buffer = [0; 1518];
    host.run(|| {
        for (card, sent, received) in &mut cards {
            card.service(); // connects, if that is what it takes
            while card.link() == Link::Up && *sent < COUNT {
                match card.send_frame(&frame(*sent)) {
                    Ok(()) => *sent += 1,
                    Err(WriteError::Full | WriteError::NoMemory) => break, // later
                    Err(error) => {
                        problem = Some(error);
                        return Next::Done;
                    }
                }
            }
            card.flush();
            while let Ok(Some(len)) = card.recv_frame(&mut buffer) {
                assert!(buffer[..len] == frame(*received), "frame {received} is another");
                *received += 1;
            }
        }
        let done = cards.iter().all(|(_, _, received)| *received == COUNT);
        if done { Next::Done } else { Next::Now }
    })?;
    problem.map_or(Ok(()), Err)?;
    for (card, sent, received) in &cards {
        let totals = card.totals();
        let mac = card.mac().unwrap_or_default();
        println!("{mac}, MTU {}: {sent} frames sent, {received} back", card.mtu());
        assert_eq!((*sent, *received, totals.rx_dropped + totals.tx_dropped), (COUNT, COUNT, 0));
    }
    Ok(())
}
