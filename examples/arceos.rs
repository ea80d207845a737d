//! The driver in the shape of ArceOS's `NetDriverOps` (crate `axdriver_net`): buffers go back and forth,
//! every call returns at once, and one that can do nothing says `Again`.
//!
//! There a buffer is a pair of raw pointers; here it is a box, which says the same without `unsafe`.
//!
//! ```sh
//! cargo run --example arceos
//! ```

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xen_netfront::netfront::Netfront;
use xen_netfront::packet::device::{Link, WriteError};
use xen_netfront::packet::frames::{FrameDevice, Frames, RecvError};
use xen_netfront::platform::Platform;
use xen_netfront::store::Store;
use xen_sim::Next;
use xen_sim::mirror::Mirror;

/// What a call that failed says, of ArceOS's `DevError`.
#[derive(Debug, PartialEq)]
enum DevError {
    Again,
    InvalidParam,
    NoMemory,
}

type DevResult<T = ()> = Result<T, DevError>;

/// A buffer, and how many of its bytes are the packet.
struct NetBuf(Box<[u8]>, usize);

/// What ArceOS asks of a network card.
trait NetDriverOps: Send + Sync {
    fn mac_address(&self) -> [u8; 6];
    fn can_transmit(&self) -> bool;
    fn can_receive(&self) -> bool;
    fn rx_queue_size(&self) -> usize;
    fn tx_queue_size(&self) -> usize;
    fn recycle_rx_buffer(&mut self, buf: NetBuf) -> DevResult;
    fn recycle_tx_buffers(&mut self) -> DevResult;
    fn transmit(&mut self, buf: NetBuf) -> DevResult;
    fn receive(&mut self) -> DevResult<NetBuf>;
    fn alloc_tx_buffer(&mut self, size: usize) -> DevResult<NetBuf>;
}

/// The frontend of a vif. It copies, so its buffers are any memory, kept and used again.
struct XenNet<P: Platform, S: Store> {
    // `can_receive` looks at the ring through a shared reference.
    card: Mutex<Frames<Netfront<P, S>>>,
    spare: Vec<Box<[u8]>>,
}

impl<P: Platform, S: Store> XenNet<P, S> {
    fn card(&self) -> MutexGuard<'_, Frames<Netfront<P, S>>> {
        self.card.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffer(&mut self, size: usize) -> Box<[u8]> {
        let spare = self.spare.pop().filter(|buf| buf.len() >= size);
        spare.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }
}

impl<P: Platform + Send, S: Store + Send> NetDriverOps for XenNet<P, S> {
    fn mac_address(&self) -> [u8; 6] {
        self.card().mac().unwrap_or_default().0
    }

    fn can_transmit(&self) -> bool {
        self.card().room() > 0
    }

    fn can_receive(&self) -> bool {
        self.card().has_frame()
    }

    fn rx_queue_size(&self) -> usize {
        256
    }

    fn tx_queue_size(&self) -> usize {
        256
    }

    fn recycle_rx_buffer(&mut self, buf: NetBuf) -> DevResult {
        self.spare.push(buf.0);
        Ok(())
    }

    /// What was sent has been copied, so there is nothing to give back. ArceOS calls it each time round:
    /// the place to see to xenbus and timers.
    fn recycle_tx_buffers(&mut self) -> DevResult {
        self.card().service();
        Ok(())
    }

    fn transmit(&mut self, buf: NetBuf) -> DevResult {
        let mut card = self.card();
        let sent =
            buf.0.get(..buf.1).ok_or(WriteError::BadLength).and_then(|it| card.send_frame(it));
        card.flush();
        drop(card);
        self.spare.push(buf.0);
        sent.map_err(|why| match why {
            WriteError::Full => DevError::Again,
            WriteError::NoMemory => DevError::NoMemory,
            _ => DevError::InvalidParam,
        })
    }

    fn receive(&mut self) -> DevResult<NetBuf> {
        let mut buf = self.buffer(1518);
        let received = self.card().recv_frame(&mut buf);
        match received {
            Ok(Some(len)) => return Ok(NetBuf(buf, len)),
            // The MTU has grown: the frame waits for a larger buffer.
            Err(RecvError::TooShort(len)) => buf = vec![0; len].into_boxed_slice(),
            Ok(None) | Err(_) => {}
        }
        self.spare.push(buf);
        Err(DevError::Again)
    }

    fn alloc_tx_buffer(&mut self, size: usize) -> DevResult<NetBuf> {
        Ok(NetBuf(self.buffer(size), size))
    }
}

/// Sends and receives `count` packets; true once all are back.
fn turn(
    card: &mut dyn NetDriverOps,
    sent: &mut u32,
    received: &mut u32,
    count: u32,
) -> DevResult<bool> {
    card.recycle_tx_buffers()?;
    while *sent < count && card.can_transmit() {
        let mut buf = card.alloc_tx_buffer(200)?;
        buf.0[..200].fill(*sent as u8);
        card.transmit(buf)?;
        *sent += 1;
    }
    while card.can_receive() {
        let buf = card.receive()?;
        assert!(buf.0[..buf.1] == [*received as u8; 200], "packet {received} is another");
        *received += 1;
        card.recycle_rx_buffer(buf)?;
    }
    Ok(*received == count)
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = Mirror::new(2)?;
    let net = host.open()?;
    assert_eq!(net.link(), Link::Down, "it connects as it is driven");
    let mut card = XenNet { card: Mutex::new(Frames::new(net)), spare: Vec::new() };
    let (mut sent, mut received, mut failed) = (0, 0, None);
    host.run(|| match turn(&mut card, &mut sent, &mut received, 1000) {
        Ok(true) => Next::Done,
        Ok(false) => Next::Now,
        Err(why) => {
            failed = Some(why);
            Next::Done
        }
    })?;
    assert_eq!((failed, sent, received), (None, 1000, 1000));
    let [queue, buffers] = [card.tx_queue_size().min(card.rx_queue_size()), card.spare.len()];
    println!("{:02x?}: {sent} packets sent and back", card.mac_address());
    println!("queues of {queue}, {buffers} buffers in all");
    Ok(())
}
