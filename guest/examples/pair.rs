//! What two kernels can check of each other, on real Xen: grants, event channels, and how little a
//! storm of events costs (P1).
//!
//! Says `pair: passed` or `pair: FAILED` in the end, and powers off. The command line says which
//! side this is, and where the other is; the first says in `data/offer` what the second needs:
//!
//! ```text
//! offer=DOMID    data/offer is GREF,PORT      take=DOMID,GREF,PORT
//! endure=DOMID   data/offer is PORT           storm=DOMID,PORT
//! ```
#![cfg_attr(target_os = "none", no_std, no_main)]

xen_guest::main!(pair::run);

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod pair {
    use alloc::{format, string::String};
    use core::sync::atomic::Ordering;
    use core::time::Duration;

    use xen_grant::{DomId, ForeignPage, FramePool, GrantTable, GrantedPage, Grantee, SharedPage};
    use xen_guest::Xen;
    use xen_netfront::platform::{BackendPlatform, Platform, Port};
    use xen_netfront::store::Store;

    /// Fails with the condition's text.
    macro_rules! ensure {
        ($condition:expr) => {
            if !$condition {
                return Err(format!("not so: {}", stringify!($condition)));
            }
        };
    }

    /// What [`offer`] puts into the first word of the page; the second becomes its inverse.
    const MAGIC: u32 = 0x6772_6e74;
    /// How long one side waits for the other.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// How long a storm is endured, first without defence, then with it.
    const ENDURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

    type TestResult = Result<(), String>;

    pub fn run(xen: Xen) {
        let outcome = match xen.command_line().split_once('=') {
            Some(("offer", to)) => offer(xen, to),
            Some(("take", from)) => take(xen, from),
            Some(("endure", from)) => endure(xen, from),
            Some(("storm", at)) => storm(xen, at),
            _ => Err("which side?".into()),
        };
        match outcome {
            Ok(()) => log::info!("pair: passed"),
            Err(why) => log::error!("pair: FAILED: {why}"),
        }
    }

    fn number(text: Option<&str>) -> Result<u32, String> {
        let number = text.and_then(|text| text.parse().ok());
        number.ok_or_else(|| "a number is missing".into())
    }

    fn domain(text: Option<&str>) -> Result<DomId, String> {
        Ok(DomId(u16::try_from(number(text)?).map_err(|_| "no domain has this number")?))
    }

    fn port(text: Option<&str>) -> Result<Port, String> {
        Port::new(number(text)?).ok_or_else(|| "no channel has port 0".into())
    }

    /// Grants a page to another domain; done when the other one has written into it and let go.
    fn offer(xen: Xen, to: &str) -> TestResult {
        let peer = domain(Some(to))?;
        let pool = FramePool::new(&xen, 1).map_err(|error| format!("{error}"))?;
        let frame = pool.take().ok_or("no frame")?;
        let reference = GrantTable::new(&xen).claim().map_err(|error| format!("{error}"))?;
        let page = GrantedPage::new(frame, reference, &Grantee::new(peer, true));
        page.words()[0].store(MAGIC, Ordering::Relaxed);
        let port = xen.alloc_unbound(peer).map_err(|error| format!("{error}"))?;
        let text = format!("{},{}", page.number(), port.get());
        xen.write(None, "data/offer", text.as_bytes()).map_err(|error| format!("{error}"))?;
        let patience = xen.now() + PATIENCE;
        while page.words()[1].load(Ordering::Acquire) != !MAGIC {
            ensure!(xen.now() < patience);
            xen.wait(Some(patience));
        }
        let Err(mut used) = page.revoke() else {
            return Err("revoked though mapped".into());
        };
        xen.notify(port);
        while let Err(still_used) = used.0.revoke() {
            ensure!(xen.now() < patience);
            xen.wait(Some(xen.now() + Duration::from_millis(10)));
            used = still_used;
        }
        Ok(())
    }

    /// The other side of [`offer`].
    fn take(xen: Xen, from: &str) -> TestResult {
        let mut words = from.split(',');
        let (peer, gref) = (domain(words.next())?, number(words.next())?);
        let remote = port(words.next())?;
        let bad = ForeignPage::map(&xen, peer, gref + 1);
        ensure!(bad.is_err_and(|status| !status.is_okay()));
        let page = ForeignPage::map(&xen, peer, gref).map_err(|status| format!("{status}"))?;
        ensure!(page.words()[0].load(Ordering::Relaxed) == MAGIC);
        let local = xen.bind_interdomain(peer, remote).map_err(|error| format!("{error}"))?;
        page.words()[1].store(!MAGIC, Ordering::Release);
        // Twice: Xen fires a new end once by itself.
        for _ in 0..2 {
            xen.notify(local);
            xen.wait(Some(xen.now() + Duration::from_secs(2)));
        }
        drop(page);
        let again = ForeignPage::map(&xen, peer, gref);
        xen.close(local);
        drop(again);
        Ok(())
    }

    /// Counts how often a peer that fires a channel for nothing gets us to look.
    fn endure(xen: Xen, from: &str) -> TestResult {
        let error = |error| format!("{error}");
        let here = xen.alloc_unbound(domain(Some(from))?).map_err(error)?;
        let text = format!("{}", here.get());
        xen.write(None, "data/offer", text.as_bytes()).map_err(|error| format!("{error}"))?;
        let patience = xen.now() + PATIENCE;
        while !xen.port_fired(here) {
            ensure!(xen.now() < patience);
            xen.wait(Some(patience));
        }
        let looks = |time: Duration, defended: bool| {
            let (end, mut looks) = (xen.now() + time, 0u32);
            while xen.now() < end {
                xen.wait(Some(end));
                looks += u32::from(xen.port_fired(here));
                if defended {
                    xen.handled(here, false);
                }
            }
            looks
        };
        let open = looks(ENDURE.0, false);
        let defended = looks(ENDURE.1, true);
        log::info!("{open} looks in 1 s without defence, {defended} in 10 s with it");
        // Without defence it is once each time the scheduler comes to us; with it, the delays sum
        // up to a second after a dozen looks, and are a second each from then on.
        ensure!(open >= 20);
        ensure!((10..30).contains(&defended));
        xen.close(here);
        Ok(())
    }

    /// The other side of [`endure`]: fires until there is nobody left.
    fn storm(xen: Xen, at: &str) -> TestResult {
        let mut words = at.split(',');
        let peer = domain(words.next())?;
        let remote = port(words.next())?;
        let local = xen.bind_interdomain(peer, remote).map_err(|error| format!("{error}"))?;
        let end = xen.now() + ENDURE.0 + ENDURE.1 + Duration::from_secs(5);
        let mut fired = 0u64;
        while xen.now() < end {
            (0..100).for_each(|_| xen.notify(local));
            fired += 100;
        }
        log::info!("fired {fired} times");
        Ok(())
    }
}
