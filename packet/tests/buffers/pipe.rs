//! A copying device's other side: frames with what is known about them, in memory that is there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use packet_views::buffer::Meta;
use packet_views::copying::RawIo;
use packet_views::features::Features;

/// Frames on their way in one direction.
#[derive(Default)]
pub struct Fifo {
    pub frames: VecDeque<(Vec<u8>, Meta)>,
    spare: Vec<Vec<u8>>,
}

/// One end.
pub struct Pipe {
    pub out: Rc<RefCell<Fifo>>,
    pub into: Rc<RefCell<Fifo>>,
    pub features: Features,
    /// Frames that can be on their way.
    pub room: usize,
}

/// Both ends of a pipe that takes, and gives, this.
pub fn pipe(features: Features, room: usize) -> (Pipe, Pipe) {
    let fifo = || {
        let spare = (0..room).map(|_| Vec::with_capacity(65_535)).collect();
        Rc::new(RefCell::new(Fifo { frames: VecDeque::with_capacity(room), spare }))
    };
    let (there, back) = (fifo(), fifo());
    type Way = Rc<RefCell<Fifo>>;
    let end = |out: &Way, into: &Way| Pipe { out: out.clone(), into: into.clone(), features, room };
    (end(&there, &back), end(&back, &there))
}

impl RawIo for Pipe {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        self.recv_meta(target).map(|(len, _)| len)
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.send_meta(bytes, Meta::default())
    }

    fn features(&self) -> Features {
        self.features
    }

    fn recv_meta(&mut self, target: &mut [u8]) -> Option<(usize, Meta)> {
        let mut into = self.into.borrow_mut();
        let (frame, meta) = into.frames.pop_front()?;
        let len = frame.len();
        if let Some(target) = target.get_mut(..len) {
            target.copy_from_slice(&frame);
        }
        into.spare.push(frame);
        Some((len, meta))
    }

    fn send_meta(&mut self, bytes: &[u8], meta: Meta) -> bool {
        let mut out = self.out.borrow_mut();
        if out.frames.len() == self.room {
            return false;
        }
        let mut frame = out.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(bytes);
        out.frames.push_back((frame, meta));
        true
    }
}
