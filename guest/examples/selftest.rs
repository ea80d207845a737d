//! What a kernel can check of its machine by itself, on real Xen: pages, clock, timer, events to
//! itself, xenstore, grants to itself, page tables.
//!
//! Says `selftest: passed` or `selftest: FAILED` in the end, and powers off. The command line may
//! ask for something else:
//!
//! * `crash=WHAT`: goes wrong on purpose: `stack`, `null`, `code`, `constant`, `data`,
//!   `instruction`, `panic`.
//! * `type=WORD`: waits until somebody types this word, and Return, at the console.
#![cfg_attr(target_os = "none", no_std, no_main)]

xen_guest::main!(selftest::run);

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod selftest {
    use alloc::vec::Vec;
    use alloc::{format, string::String, vec};
    use core::sync::atomic::Ordering;
    use core::time::Duration;
    use core::{hint, ptr};

    use x86_64::registers::control::Cr3;
    use x86_64::structures::paging::{PageTable, PageTableFlags as Flags};
    use xen_grant::{
        CopyEnd, CopyOp, DomId, ForeignMemory, ForeignPage, FramePool, GrantStatus, GrantTable,
        GrantedPage, Grantee, Memory, SharedPage,
    };
    use xen_guest::Xen;
    use xen_netfront::platform::{BackendPlatform, Platform};
    use xen_netfront::store::{Store, StoreError};

    /// Fails the test with the condition's text.
    macro_rules! ensure {
        ($condition:expr) => {
            if !$condition {
                return Err(format!("not so: {}", stringify!($condition)));
            }
        };
    }

    type TestResult = Result<(), String>;
    type Test = fn(Xen) -> TestResult;

    pub fn run(xen: Xen) {
        let tests: [(&str, Test); 10] = [
            ("pages", pages),
            ("heap", heap),
            ("page tables", page_tables),
            ("clock and timer", clock),
            ("events", events),
            ("an event before the sleep", early_event),
            ("xenstore", xenstore),
            ("watches", watches),
            ("grants", grants),
            ("entropy", entropy),
        ];
        let option = |name| {
            let mut words = xen.command_line().split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(name))
        };
        let mut failed = 0;
        let mut judge = |name: &str, outcome: TestResult| match outcome {
            Ok(()) => log::info!("selftest: {name}: ok"),
            Err(why) => {
                failed += 1;
                log::error!("selftest: {name}: {why}");
            }
        };
        if let Some(how) = option("crash=") {
            return go_wrong(how);
        }
        match option("type=") {
            Some(word) => judge("typing", typing(xen, word)),
            None => tests.iter().for_each(|(name, test)| judge(name, test(xen))),
        }
        match failed {
            0 => log::info!("selftest: passed"),
            _ => log::error!("selftest: FAILED {failed}"),
        }
    }

    fn pages(xen: Xen) -> TestResult {
        let before = xen.free_memory();
        for _ in 0..2 {
            let pages: Vec<_> = (0..64).map_while(|_| xen.alloc_page()).collect();
            ensure!(pages.len() == 64);
            ensure!(xen.free_memory() == before - 64 * 4096);
            for (page, gfn) in pages {
                ensure!(page.addr().get() as u64 == gfn.0 * 4096);
                // SAFETY: the page is ours alone.
                let bytes = unsafe { &mut (*page.as_ptr()).0 };
                ensure!(bytes.iter().all(|&byte| byte == 0));
                bytes.fill(0xa5);
                // SAFETY: it came from `alloc_page`, and the last reference to it was above.
                unsafe { xen.free_page(page, gfn) };
            }
        }
        ensure!(xen.free_memory() == before);
        Ok(())
    }

    fn heap(_: Xen) -> TestResult {
        let mut kept = Vec::new();
        for round in 0..2000usize {
            kept.push(vec![round as u8; round * 7 % 3000]);
            if round % 3 == 0 {
                kept.swap_remove(round / 6);
            }
        }
        let is_whole = |block: &Vec<u8>| block.iter().all(|byte| Some(byte) == block.first());
        ensure!(kept.iter().all(is_whole));
        Ok(())
    }

    /// P5: nothing is both writable and executable; nothing is at address 0.
    fn page_tables(_: Xen) -> TestResult {
        fn walk(table: &PageTable, level: u8, visit: &mut impl FnMut(u64, Flags)) {
            for entry in table.iter() {
                let flags = entry.flags();
                if !flags.contains(Flags::PRESENT) {
                    continue;
                }
                if level == 1 || flags.contains(Flags::HUGE_PAGE) {
                    visit(entry.addr().as_u64(), flags);
                } else {
                    let at = ptr::with_exposed_provenance(entry.addr().as_u64() as usize);
                    // SAFETY: page tables lie in memory, which is mapped to itself.
                    walk(unsafe { &*at }, level - 1, visit);
                }
            }
        }
        let root = Cr3::read().0.start_address().as_u64();
        let root: *const PageTable = ptr::with_exposed_provenance(root as usize);
        let (mut pages, mut both, mut zero) = (0, 0, false);
        // SAFETY: as above; nobody changes the tables meanwhile.
        walk(unsafe { &*root }, 4, &mut |at, flags| {
            pages += 1;
            let executable = !flags.contains(Flags::NO_EXECUTE);
            both += u32::from(executable && flags.contains(Flags::WRITABLE));
            zero |= at == 0;
        });
        log::debug!("{pages} pages, small and large");
        ensure!(pages > 10);
        ensure!(both == 0);
        ensure!(!zero);
        Ok(())
    }

    fn clock(xen: Xen) -> TestResult {
        let mut last = xen.now();
        for _ in 0..100_000 {
            let now = xen.now();
            ensure!(now >= last);
            last = now;
        }
        for millis in [0, 1, 20, 200] {
            let until = xen.now() + Duration::from_millis(millis);
            while xen.now() < until {
                xen.wait(Some(until));
            }
            ensure!(xen.now() - until < Duration::from_secs(5));
        }
        let start = xen.now();
        xen.wait(Some(start));
        Ok(())
    }

    fn own_domain(xen: Xen) -> Result<DomId, String> {
        let text = xen.read(None, "domid").map_err(|error| format!("{error}"))?;
        let number = core::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        let own = number.map(DomId).ok_or("no domid")?;
        ensure!(xen.domain().is_none_or(|domain| domain == own));
        Ok(own)
    }

    fn events(xen: Xen) -> TestResult {
        let own = own_domain(xen)?;
        let error = |error| format!("{error}");
        let here = xen.alloc_unbound(own).map_err(error)?;
        let there = xen.bind_interdomain(own, here).map_err(error)?;
        // Xen fires a new end once, in case something was missed.
        let soon = |millis| Some(xen.now() + Duration::from_millis(millis));
        xen.wait(soon(20));
        xen.wait(soon(20));
        ensure!(!xen.port_fired(here) && !xen.port_fired(there));

        for round in 0..100 {
            for _ in 0..=round {
                xen.notify(there);
            }
            xen.wait(None);
            ensure!(xen.port_fired(here) && !xen.port_fired(there));
            // While it is being served it stays quiet; what comes meanwhile is not lost.
            if round % 2 == 0 {
                xen.notify(there);
                xen.wait(None);
                ensure!(xen.port_fired(here));
            }
        }
        let start = xen.now();
        xen.wait(soon(50));
        ensure!(xen.now() - start >= Duration::from_millis(50));
        ensure!(!xen.port_fired(here));

        xen.close(there);
        xen.notify(there);
        xen.close(there);
        xen.close(here);
        ensure!(xen.bind_interdomain(own, here).is_err());
        Ok(())
    }

    /// An event whose interrupt comes when `hlt` is the next instruction: it is not slept over.
    fn early_event(xen: Xen) -> TestResult {
        unsafe extern "C" {
            /// The runtime's `hlt`.
            static idle_asleep: u8;
        }
        let own = own_domain(xen)?;
        let error = |error| format!("{error}");
        let here = xen.alloc_unbound(own).map_err(error)?;
        let there = xen.bind_interdomain(own, here).map_err(error)?;
        xen.wait(Some(xen.now() + Duration::from_millis(20)));
        // A timer that is still set ends one sleep at most.
        for _ in 0..20 {
            xen.wait(Some(xen.now()));
            xen.notify(there);
            // SAFETY: this calls the runtime's way to sleep behind its first instruction, `sti`,
            // which iretq stands for; it returns to the label. The upcall preserves all registers.
            unsafe {
                core::arch::asm!(
                    "lea {at}, [rip + 2f]",
                    "push {at}",
                    "mov {top}, rsp",
                    "mov {at:e}, ss",
                    "push {at}",
                    "push {top}",
                    "pushfq",
                    "or qword ptr [rsp], 0x200",
                    "mov {at:e}, cs",
                    "push {at}",
                    "lea {at}, [rip + {asleep}]",
                    "push {at}",
                    "iretq",
                    "2:",
                    at = out(reg) _,
                    top = out(reg) _,
                    asleep = sym idle_asleep,
                );
            }
            xen.wait(Some(xen.now()));
            ensure!(xen.port_fired(here));
        }
        xen.close(there);
        xen.close(here);
        Ok(())
    }

    fn xenstore(xen: Xen) -> TestResult {
        let error = |error| format!("{error}");
        ensure!(xen.read(None, "nothing/here") == Err(StoreError::NotFound));
        ensure!(xen.write(None, "/local/domain/0/mine", b"") == Err(StoreError::Denied));
        ensure!(xen.read(None, &"long".repeat(1100)).is_err());
        // xenstored allows 2048 bytes, its own notes on the node included.
        let large = vec![b'x'; 1900];
        ensure!(xen.write(None, "data/selftest/a", &[0; 2048]) == Err(StoreError::Quota));
        for value in [&b""[..], b"one\0two\xff", &large] {
            xen.write(None, "data/selftest/a", value).map_err(error)?;
            ensure!(xen.read(None, "data/selftest/a").as_deref() == Ok(value));
        }
        xen.write(None, "data/selftest/b", b"1").map_err(error)?;
        let mut names = xen.list(None, "data/selftest").map_err(error)?;
        names.sort();
        ensure!(names == ["a", "b"]);

        let first = xen.begin().map_err(error)?;
        xen.write(Some(first), "data/selftest/b", b"2").map_err(error)?;
        ensure!(xen.read(None, "data/selftest/b").as_deref() == Ok(b"1"));
        ensure!(xen.read(Some(first), "data/selftest/b").as_deref() == Ok(b"2"));
        ensure!(xen.commit(first) == Ok(()));
        ensure!(xen.read(None, "data/selftest/b").as_deref() == Ok(b"2"));

        let second = xen.begin().map_err(error)?;
        ensure!(xen.read(Some(second), "data/selftest/b").as_deref() == Ok(b"2"));
        xen.write(Some(second), "data/selftest/b", b"3").map_err(error)?;
        xen.write(None, "data/selftest/b", b"4").map_err(error)?;
        ensure!(xen.commit(second) == Err(StoreError::Again));
        ensure!(xen.read(None, "data/selftest/b").as_deref() == Ok(b"4"));

        let third = xen.begin().map_err(error)?;
        xen.remove(Some(third), "data/selftest").map_err(error)?;
        xen.abort(third);
        ensure!(xen.read(None, "data/selftest/b").is_ok());
        ensure!(xen.remove(None, "data/selftest") == Ok(()));
        ensure!(xen.read(None, "data/selftest/b") == Err(StoreError::NotFound));
        Ok(())
    }

    fn watches(xen: Xen) -> TestResult {
        let error = |error| format!("{error}");
        let watch = xen.watch("data/watched").map_err(error)?;
        ensure!(xen.fired(&watch));
        let quiet = |xen: Xen| {
            xen.wait(Some(xen.now() + Duration::from_millis(50)));
            xen.fired(&watch);
            !xen.fired(&watch)
        };
        ensure!(quiet(xen));
        for _ in 0..50 {
            xen.write(None, "data/watched/child", b"1").map_err(error)?;
        }
        xen.wait(Some(xen.now() + Duration::from_millis(50)));
        ensure!(xen.fired(&watch));
        ensure!(quiet(xen));
        xen.unwatch(watch);
        xen.remove(None, "data/watched").map_err(error)
    }

    fn grants(xen: Xen) -> TestResult {
        let own = own_domain(xen)?;
        let pool = FramePool::new(&xen, 8).map_err(|error| format!("{error}"))?;
        let table = GrantTable::new(&xen);
        let grantee = Grantee::new(own, true);
        let frame = pool.take().ok_or("no frame")?;
        // More references than one frame of the table has.
        let mut references = table.claim_many(1000).map_err(|error| format!("{error}"))?;
        ensure!(GrantTable::new(&xen).claim().is_err());
        let reference = references.pop().ok_or("no reference")?;
        let here = GrantedPage::new(frame, reference, &grantee);
        ensure!(here.number() >= 512);

        ensure!(ForeignPage::map(&xen, own, here.number()).is_err());
        for word in 0..1024 {
            here.words()[word].store(word as u32 ^ 0x5a5a, Ordering::Relaxed);
        }

        let (page, gfn) = xen.alloc_page().ok_or("no page")?;
        let copy = |gref, offset| CopyOp {
            source: CopyEnd::Foreign { domain: own, gref, offset: 8 },
            dest: CopyEnd::Own { gfn, offset },
            len: 4,
            status: GrantStatus::OKAY,
        };
        let number = here.number();
        // The second one names a reference that grants nothing.
        let mut copies = [copy(number, 100), copy(number - 1, 200), copy(number, 300)];
        // SAFETY: the page is ours, and nobody else touches it.
        unsafe { xen.grant_copy(&mut copies) };
        // SAFETY: as above.
        let bytes = unsafe { &(*page.as_ptr()).0 };
        ensure!(copies.map(|copy| copy.status.is_okay()) == [true, false, true]);
        ensure!(bytes[100..104] == (2u32 ^ 0x5a5a).to_le_bytes() && bytes[200..204] == [0; 4]);
        ensure!(bytes[300..304] == (2u32 ^ 0x5a5a).to_le_bytes());
        ensure!(bytes[304..].iter().all(|&byte| byte == 0));
        // SAFETY: it came from `alloc_page`, and nobody uses it any more.
        unsafe { xen.free_page(page, gfn) };
        ensure!(here.revoke().is_ok());
        Ok(())
    }

    fn entropy(xen: Xen) -> TestResult {
        let mut drawn: Vec<u64> = (0..1000).map(|_| xen.random()).collect();
        let ones: u32 = drawn.iter().map(|number| number.count_ones()).sum();
        // 64,000 coins: half of them ones, give or take eight times the deviation.
        ensure!((31_000..33_000).contains(&ones));
        drawn.sort_unstable();
        drawn.dedup();
        ensure!(drawn.len() == 1000);
        Ok(())
    }

    fn typing(xen: Xen, word: &str) -> TestResult {
        let mut typed = Vec::new();
        let patience = xen.now() + Duration::from_secs(60);
        log::info!("type {word}");
        loop {
            let mut buffer = [0; 16];
            let count = xen.console_read(&mut buffer);
            typed.extend_from_slice(&buffer[..count]);
            if typed.ends_with(b"\r") || typed.ends_with(b"\n") {
                break;
            }
            ensure!(xen.now() < patience);
            if count == 0 {
                xen.wait(Some(patience));
            }
        }
        ensure!(typed.trim_ascii() == word.as_bytes());
        Ok(())
    }

    fn go_wrong(how: &str) {
        fn dive(depth: u64) -> u64 {
            let waste = hint::black_box([depth; 64]);
            if depth == u64::MAX { 0 } else { dive(depth + 1) + waste[3] }
        }
        static CONSTANT: [u8; 64] = [7; 64];
        log::info!("going wrong: {how}");
        let code = run as fn(Xen) as *mut u8;
        let address = match how {
            "stack" => {
                log::info!("{}", dive(0));
                return;
            }
            "panic" => {
                log::info!("{}", hint::black_box(&[0][..])[how.len()]);
                return;
            }
            "data" => {
                let data = [0xc3u8; 16];
                // SAFETY: none; this is to go wrong.
                let call: fn() = unsafe { core::mem::transmute(data.as_ptr()) };
                return call();
            }
            // SAFETY: none; this is to go wrong.
            "instruction" => return unsafe { core::arch::asm!("ud2") },
            "null" => ptr::without_provenance_mut(8),
            "constant" => CONSTANT.as_ptr().cast_mut(),
            _ => code,
        };
        // SAFETY: none; this is to go wrong.
        unsafe { address.write_volatile(0) };
    }
}
