//! The rings that a domain is built with, console and xenstore: each a page and an event channel,
//! told by two of the domain's parameters (xen/hvm/params.h). A domain may lack either.

use xen_grant::Gfn;
use xen_netfront::platform::Port;

use super::{Errno, abi};

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The console's.
    Console,
    /// Xenstore's.
    Xenstore,
}

/// The most frames that a processor can address: 52 bits of bytes.
const FRAMES: u64 = 1 << 40;

impl Ring {
    /// Where it is, by the parameters that `get` gets; `None` where there is none. Xen says 0 for
    /// what nobody has set, others refuse to say, and a domain builder that will make xenstore
    /// later sets all bits.
    pub fn find(self, get: impl Fn(u32) -> Result<u64, Errno>) -> Option<(Gfn, Port)> {
        let (page, port) = match self {
            Ring::Console => (abi::HVM_PARAM_CONSOLE_PFN, abi::HVM_PARAM_CONSOLE_EVTCHN),
            Ring::Xenstore => (abi::HVM_PARAM_STORE_PFN, abi::HVM_PARAM_STORE_EVTCHN),
        };
        let page = get(page).ok().filter(|page| (1..FRAMES).contains(page))?;
        let port = u32::try_from(get(port).ok()?).ok().and_then(Port::new)?;
        Some((Gfn(page), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0xf_eff8;

    /// A domain with these console and xenstore parameters, page and port of each.
    fn domain(
        console: [Result<u64, Errno>; 2],
        xenstore: [Result<u64, Errno>; 2],
    ) -> impl Fn(u32) -> Result<u64, Errno> + Copy {
        move |index| match index {
            17 => console[0],
            18 => console[1],
            1 => xenstore[0],
            2 => xenstore[1],
            _ => Err(Errno(22)),
        }
    }

    #[test]
    fn both_are_found() {
        let get = domain([Ok(PAGE), Ok(2)], [Ok(PAGE + 1), Ok(1)]);
        assert_eq!(Ring::Console.find(get), Some((Gfn(PAGE), Port::new(2).unwrap())));
        assert_eq!(Ring::Xenstore.find(get), Some((Gfn(PAGE + 1), Port::new(1).unwrap())));
    }

    #[test]
    fn either_may_be_missing() {
        let there = [Ok(PAGE), Ok(1)];
        let wrong = Err(Errno(22));
        for missing in [
            [wrong, wrong],
            [Ok(0), Ok(0)],
            [Ok(PAGE), Ok(0)],
            [Ok(PAGE), wrong],
            [Ok(0), Ok(1)],
            [wrong, Ok(1)],
            [Ok(u64::MAX), Ok(1)],
            [Ok(FRAMES), Ok(1)],
            [Ok(PAGE), Ok(1 << 32)],
            [Ok(PAGE), Ok(u64::MAX)],
        ] {
            let no_console = domain(missing, there);
            assert_eq!(Ring::Console.find(no_console), None, "{missing:?}");
            assert!(Ring::Xenstore.find(no_console).is_some());
            let no_xenstore = domain(there, missing);
            assert_eq!(Ring::Xenstore.find(no_xenstore), None, "{missing:?}");
            assert!(Ring::Console.find(no_xenstore).is_some());
        }
    }
}
