//! The order in which the machine is set up.

use spin::Once;

use super::entry::BOOT_MAPPED;
use super::start_info;
use crate::options;
use crate::{Xen, clock, console, cpu, events, hypercall, logger, memory, power, xenstore};

unsafe extern "Rust" {
    /// The kernel's own main, defined by [`main!`](crate::main).
    safe fn xen_guest_main(xen: Xen);
}

static COMMAND_LINE: Once<alloc::string::String> = Once::new();

/// The command line; bytes that are no UTF-8 are replaced.
pub fn command_line() -> &'static str {
    COMMAND_LINE.get().map_or("", |line| line)
}

/// The first Rust code, on the boot stack and the boot page tables.
pub extern "C" fn start(start_info: u32) -> ! {
    logger::init();
    cpu::init();
    if !hypercall::detect() {
        fail("this is not Xen");
    }
    // SAFETY: called once, here, before anything else uses memory.
    if let Err(what) = unsafe { set_up(start_info) } {
        fail(what);
    }
    xen_guest_main(Xen::new());
    log::info!("main has returned");
    power::off()
}

fn fail(what: &str) -> ! {
    log::error!("cannot start: {what}");
    power::crash()
}

/// # Safety
///
/// Called once, while nothing but the image and the boot stack is in use.
unsafe fn set_up(start_info: u32) -> Result<(), &'static str> {
    let info = start_info::read(start_info.into(), |address, len| {
        let end = address.checked_add(len as u64)?;
        if address == 0 || end > BOOT_MAPPED {
            return None;
        }
        let start = core::ptr::with_exposed_provenance(address as usize);
        // SAFETY: these bytes are mapped, and nobody writes to them until the start info has been
        // copied.
        Some(unsafe { core::slice::from_raw_parts(start, len) })
    });
    let info = info.map_err(|bad| {
        log::error!("start info at {start_info:#x}: {bad}");
        "invalid start info"
    })?;
    // SAFETY: Xen's memory map is right; the start info has been copied; our caller calls once.
    unsafe { memory::init(&info.regions, BOOT_MAPPED) }.ok_or("no memory behind the image")?;
    memory::choose_window(&info.regions);
    // SAFETY: Xen's memory map is right, the free pages are set up, the boot tables are in use.
    unsafe { memory::init_paging(&info.regions) }.ok_or("no memory for page tables")?;

    let line = alloc::string::String::from_utf8_lossy(&info.command_line).into_owned();
    let line = COMMAND_LINE.call_once(|| line);
    // What is wrong with the line is for the kernel's main to say: it may know more options.
    if let Some(level) = options::log_level(line) {
        log::set_max_level(level);
    }
    logger::use_debug_port(options::debug_port(line).unwrap_or(false));
    for region in &info.regions {
        let kind = if region.ram { "memory" } else { "reserved" };
        log::debug!("{:#x}..{:#x} {kind}", region.start, region.end);
    }

    let by_apic = options::vcpu_upcall(line).unwrap_or(false);
    events::init(by_apic).map_err(|errno| failed("event channels", errno))?;
    clock::start().map_err(|errno| failed("clock", errno))?;
    console::init().map_err(|errno| failed("console", errno))?;
    xenstore::init().map_err(|errno| failed("xenstore", errno))?;
    if by_apic && !events::by_apic() {
        log::warn!("upcall=vcpu is not available, using upcall=domain");
    }
    log::info!("{} KiB of memory free, command line {line:?}", memory::free_bytes() / 1024);
    Ok(())
}

fn failed(what: &'static str, errno: hypercall::Errno) -> &'static str {
    log::error!("{what}: {errno}");
    what
}
