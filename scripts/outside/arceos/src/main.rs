//! A kernel that keeps its network drivers behind a trait of its own, in the shape of ArceOS's
//! `NetDriverOps`, and its devices in a `Box<dyn ..>`. It sends every frame back where it came from.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use xen_grant::{FramePool, GrantTable};
use xen_guest::Xen;
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::packet::device::WriteError;
use xen_netfront::packet::frames::{FrameDevice, Frames, RecvError};
use xen_netfront::platform::{Instant, Platform};

xen_guest::main!(kernel);

/// `DevError`
#[derive(Debug)]
enum DevError {
    Again,
    InvalidParam,
    NoMemory,
}

/// `NetDriverOps`
trait NetDriverOps {
    fn device_name(&self) -> &str;
    fn mac_address(&self) -> [u8; 6];
    fn can_transmit(&mut self) -> bool;
    fn can_receive(&mut self) -> bool;
    fn transmit(&mut self, frame: &[u8]) -> Result<(), DevError>;
    fn receive(&mut self) -> Result<Vec<u8>, DevError>;
    /// What an interrupt or a timer is for; until when there is nothing to do.
    fn service(&mut self) -> Option<Instant>;
}

/// Plain frames: a blank checksum is filled in, a large packet cut, before this kernel sees them.
struct XenNet {
    frames: Frames<Netfront<Xen, Xen>>,
    xen: Xen,
}

impl NetDriverOps for XenNet {
    fn device_name(&self) -> &str {
        "xen-netfront"
    }

    fn mac_address(&self) -> [u8; 6] {
        self.frames.mac().unwrap_or_default().0
    }

    fn can_transmit(&mut self) -> bool {
        self.frames.room() > 0
    }

    fn can_receive(&mut self) -> bool {
        self.frames.has_frame()
    }

    fn transmit(&mut self, frame: &[u8]) -> Result<(), DevError> {
        match self.frames.send_frame(frame) {
            Ok(()) => Ok(self.frames.flush()),
            Err(WriteError::Full) => Err(DevError::Again),
            Err(WriteError::NoMemory) => Err(DevError::NoMemory),
            Err(_) => Err(DevError::InvalidParam),
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, DevError> {
        let mut frame = vec![0; self.frames.max_frame()];
        match self.frames.recv_frame(&mut frame) {
            Ok(Some(len)) => {
                frame.truncate(len);
                Ok(frame)
            }
            Ok(None) => Err(DevError::Again),
            Err(RecvError::NoMemory) => Err(DevError::NoMemory),
            Err(_) => Err(DevError::InvalidParam),
        }
    }

    fn service(&mut self) -> Option<Instant> {
        let within = self.frames.service();
        if self.frames.rearm() {
            return Some(Instant::default()); // at once
        }
        within.map(|within| self.xen.now() + within)
    }
}

fn kernel(xen: Xen) -> xen_guest::Result {
    let config = Config::default();
    let pool = FramePool::new(&xen, config.least_pages() + 256)?;
    let table = GrantTable::new(&xen);
    let net = Netfront::open(xen, xen, &pool, &table, 0, config)?;
    let mut devices: Vec<Box<dyn NetDriverOps>> =
        Vec::from([Box::new(XenNet { frames: Frames::new(net), xen }) as _]);
    loop {
        for device in &mut devices {
            let until = device.service();
            while device.can_receive() && device.can_transmit() {
                let Ok(mut frame) = device.receive() else { break };
                if let Some((to, from)) = frame.split_at_mut_checked(6) {
                    to.copy_from_slice(&from[..6]);
                    from[..6].copy_from_slice(&device.mac_address());
                }
                if let Err(error) = device.transmit(&frame) {
                    log::warn!("{}: {error:?}", device.device_name());
                }
            }
            xen.wait(until);
        }
    }
}
