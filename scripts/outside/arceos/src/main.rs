//! A kernel that keeps its network drivers behind a trait of its own, in the shape of ArceOS's
//! `NetDriverOps`, and its devices in a `Box<dyn ..>`. It sends every frame back where it came from.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_grant::{FramePool, GrantTable};
use xen_guest::Xen;
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::packet::buffer::View;
use xen_netfront::packet::device::{Link, NetDevice, WriteError};
use xen_netfront::platform::Instant;

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
    fn can_transmit(&self) -> bool;
    fn can_receive(&mut self) -> bool;
    fn transmit(&mut self, frame: &[u8]) -> Result<(), DevError>;
    fn receive(&mut self) -> Result<Vec<u8>, DevError>;
    /// What an interrupt or a timer is for; until when there is nothing to do.
    fn service(&mut self) -> Option<Instant>;
}

struct XenNet(Netfront<Xen, Xen>);

impl NetDriverOps for XenNet {
    fn device_name(&self) -> &str {
        "xen-netfront"
    }

    fn mac_address(&self) -> [u8; 6] {
        NetDevice::mac(&self.0).map_or([0; 6], |mac| mac.0)
    }

    fn can_transmit(&self) -> bool {
        NetDevice::room(&self.0) > 0
    }

    fn can_receive(&mut self) -> bool {
        NetDevice::has_packet(&mut self.0)
    }

    fn transmit(&mut self, frame: &[u8]) -> Result<(), DevError> {
        let fill = |to: &mut [u8]| {
            to.copy_from_slice(frame);
            frame.len()
        };
        match NetDevice::write(&mut self.0, frame.len(), fill) {
            Ok(()) => Ok(NetDevice::flush(&mut self.0)),
            Err(WriteError::Full) => Err(DevError::Again),
            Err(WriteError::NoMemory) => Err(DevError::NoMemory),
            Err(_) => Err(DevError::InvalidParam),
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, DevError> {
        let packet = NetDevice::next_packet(&mut self.0).ok_or(DevError::Again)?;
        let parts: Vec<&[u8]> = packet.fragments().iter().map(View::bytes).collect();
        Ok(parts.concat())
    }

    fn service(&mut self) -> Option<Instant> {
        if self.0.service() == Link::Up && self.0.rearm() {
            return Some(Instant::default()); // at once
        }
        self.0.next_deadline()
    }
}

fn kernel(xen: Xen) -> xen_guest::Result {
    let config = Config::default();
    let pool = FramePool::new(&xen, config.least_pages() + 256)?;
    let table = GrantTable::new(&xen);
    let net = Netfront::open(xen, xen, &pool, &table, 0, config)?;
    let mut devices: Vec<Box<dyn NetDriverOps>> = Vec::from([Box::new(XenNet(net)) as _]);
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
