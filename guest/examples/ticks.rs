//! The smallest kernel: says what it finds, counts a few seconds, powers off.
#![cfg_attr(target_os = "none", no_std, no_main)]

xen_guest::main!(ticks);

#[cfg(target_os = "none")]
fn ticks(xen: xen_guest::Xen) {
    use core::time::Duration;

    use xen_grant::{DomId, Memory};
    use xen_netfront::platform::Platform;
    use xen_netfront::store::Store;

    log::info!("command line {:?}, {} KiB free", xen.command_line(), xen.free_memory() / 1024);
    for key in xen.list(None, "device/vif/0").unwrap_or_default() {
        let path = alloc::format!("device/vif/0/{key}");
        let value = xen.read(None, &path).unwrap_or_default();
        log::info!("{path} = {:?}", alloc::string::String::from_utf8_lossy(&value));
    }
    log::info!("at most {} grant frames", xen.max_grant_frames());
    for index in 0..2 {
        match xen.grant_frame(index) {
            // SAFETY: the frame stays mapped.
            Ok(words) => log::info!("grant frame {index}: {:x?}", &unsafe { words.as_ref() }[..6]),
            Err(status) => log::error!("grant frame {index}: {status}"),
        }
    }
    log::info!("a channel for dom0: {:?}", xen.alloc_unbound(DomId(0)));
    let watch = xen.watch("data");
    let mut next = xen.now();
    for tick in 0..5 {
        next = next + Duration::from_secs(1);
        while xen.now() < next {
            xen.wait(Some(next));
            if let Ok(watch) = &watch
                && xen.fired(watch)
            {
                log::info!("data has changed");
            }
        }
        log::info!("tick {tick}, {} us late", (xen.now() - next).as_micros());
    }
}

#[cfg(target_os = "none")]
extern crate alloc;
