//! What the toolstack does in xenstore: makes and removes virtual interfaces as libxl does.

use core::time::Duration;

use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_netfront::store::{Store, StoreError, Transaction};

use crate::sched::{Ctx, Next, Task};
use crate::store::{Access, Perms, StoreClient};
use crate::{Domain, Host};

/// A virtual interface to be made.
#[derive(Clone, Debug)]
pub struct Vif {
    /// The domain that gets the interface.
    pub frontend: DomId,
    /// The domain that serves it.
    pub backend: DomId,
    /// Which of the frontend's interfaces.
    pub index: u32,
    mac: [u8; 6],
    hotplug: bool,
    front: Vec<(String, String)>,
    back: Vec<(String, String)>,
}

impl Vif {
    /// An interface with a MAC address of Xen's range made from its numbers, hotplug done.
    pub fn new(frontend: DomId, backend: DomId, index: u32) -> Vif {
        let [high, low] = frontend.0.to_be_bytes();
        let mac = [0x00, 0x16, 0x3e, high, low, index as u8];
        Vif { frontend, backend, index, mac, hotplug: true, front: Vec::new(), back: Vec::new() }
    }

    /// With this MAC address.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Vif {
        self.mac = mac;
        self
    }

    /// Whether `hotplug-status` says `connected` from the start; a real script is later
    /// ([`Toolstack::hotplug`]).
    #[must_use]
    pub fn hotplug(mut self, done: bool) -> Vif {
        self.hotplug = done;
        self
    }

    /// With one more key, or another value, in the frontend's directory (`trusted`, `mtu`).
    #[must_use]
    pub fn front_key(mut self, key: &str, value: &str) -> Vif {
        self.front.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With one more key, or another value, in the backend's directory (`rate`, `bridge`).
    #[must_use]
    pub fn back_key(mut self, key: &str, value: &str) -> Vif {
        self.back.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The frontend's directory, absolute.
    pub fn front_dir(&self) -> String {
        format!("/local/domain/{}/device/vif/{}", self.frontend.0, self.index)
    }

    /// The backend's directory, absolute.
    pub fn back_dir(&self) -> String {
        let Vif { frontend, backend, index, .. } = self;
        format!("/local/domain/{}/backend/vif/{}/{index}", backend.0, frontend.0)
    }

    /// The nodes that libxl writes in the frontend's directory.
    fn front_keys(&self) -> Vec<(String, String)> {
        let keys = [
            ("backend", self.back_dir()),
            ("backend-id", self.backend.0.to_string()),
            ("state", "1".into()),
            ("handle", self.index.to_string()),
            ("mac", self.mac_text()),
            ("trusted", "1".into()),
            ("mtu", "1500".into()),
        ];
        with_more(keys, &self.front)
    }

    /// The nodes that libxl writes in the backend's directory.
    fn back_keys(&self) -> Vec<(String, String)> {
        let keys = [
            ("frontend", self.front_dir()),
            ("frontend-id", self.frontend.0.to_string()),
            ("online", "1".into()),
            ("state", "1".into()),
            ("script", "/etc/xen/scripts/vif-bridge".into()),
            ("mac", self.mac_text()),
            ("bridge", "xenbr0".into()),
            ("handle", self.index.to_string()),
            ("type", "vif".into()),
            ("hotplug-status", if self.hotplug { "connected".into() } else { String::new() }),
        ];
        with_more(keys, &self.back)
    }

    fn mac_text(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

fn with_more<const N: usize>(
    keys: [(&str, String); N],
    more: &[(String, String)],
) -> Vec<(String, String)> {
    let keys = keys.map(|(key, value)| (key.to_owned(), value));
    keys.into_iter().chain(more.iter().cloned()).collect()
}

/// Domain 0's hand in xenstore ([`Host::toolstack`]).
#[derive(Clone, Debug)]
pub struct Toolstack {
    store: StoreClient,
}

impl Host {
    /// The toolstack of this host. Domain 0 need not run here.
    pub fn toolstack(&self) -> Toolstack {
        Toolstack { store: self.store_as(DomId(0)) }
    }
}

impl Toolstack {
    /// Domain 0's xenstore: any path, any permission.
    pub fn store(&self) -> &StoreClient {
        &self.store
    }

    /// Makes both directories of an interface in one transaction, as libxl does
    /// (`libxl__device_generic_add`): what was there is removed, the directories above are domain 0's,
    /// and each of the two is its domain's and readable for the other, in state Initialising. The
    /// frontend's `mtu` is the backend's. A domain that is not there yet has its home made first.
    pub fn add_vif(&self, vif: &Vif) {
        self.store.introduce(vif.frontend);
        self.store.introduce(vif.backend);
        self.transact(|within| {
            let (front, back) = (vif.front_dir(), vif.back_dir());
            let (f, b) = (vif.frontend, vif.backend);
            for (dir, owner, reader) in [(&front, f, b), (&back, b, f)] {
                match self.store.remove(Some(within), dir) {
                    Ok(()) | Err(StoreError::NotFound) => {}
                    Err(error) => return Err(error),
                }
                self.store.write(Some(within), dir, b"")?;
                let perms = Perms::of(owner.0).with(reader.0, Access::READ);
                self.store.set_perms_within(within, dir, perms)?;
            }
            for (dir, keys) in [(&front, vif.front_keys()), (&back, vif.back_keys())] {
                for (key, value) in keys {
                    self.store.write(Some(within), &format!("{dir}/{key}"), value.as_bytes())?;
                }
            }
            let perms = Perms::of(b.0).with(f.0, Access::READ);
            self.store.set_perms_within(within, &format!("{front}/mtu"), perms)
        });
    }

    /// Does this in a transaction, as often as it takes.
    fn transact(&self, work: impl Fn(Transaction) -> Result<(), StoreError>) {
        loop {
            let done = self.store.begin().and_then(|transaction| {
                work(transaction)?;
                self.store.commit(transaction)
            });
            match done {
                Err(StoreError::Again) => {}
                Ok(()) | Err(_) => {
                    debug_assert_eq!(done, Ok(()));
                    return;
                }
            }
        }
    }

    /// Reports that the backend's hotplug script has run.
    pub fn hotplug(&self, vif: &Vif) {
        self.store.set(&format!("{}/hotplug-status", vif.back_dir()), "connected");
    }

    /// Asks the backend to close: `online` 0 and state Closing in its directory.
    pub fn begin_detach(&self, vif: &Vif) {
        let back = vif.back_dir();
        if self.store.get(&format!("{back}/state")).is_some() {
            self.store.set(&format!("{back}/online"), "0");
            self.store.set(&format!("{back}/state"), "5");
        }
    }

    /// Whether the backend has done its part: it has removed its directory, or it is domain 0 and has
    /// closed. What a driver domain serves it removes itself; libxl waits for that too.
    pub fn detached(&self, vif: &Vif) -> bool {
        let state = self.store.get(&format!("{}/state", vif.back_dir()));
        state.is_none_or(|state| state == "6" && vif.backend.0 == 0)
    }

    /// Removes both directories, whatever state they are in, and the directories above that are empty
    /// then (`libxl__xs_path_cleanup`).
    pub fn remove_vif(&self, vif: &Vif) {
        self.transact(|within| {
            for dir in [vif.front_dir(), vif.back_dir()] {
                self.clean(within, &dir)?;
            }
            Ok(())
        });
    }

    fn clean(&self, within: Transaction, dir: &str) -> Result<(), StoreError> {
        // One that is gone already is fine.
        if self.store.remove(Some(within), dir) == Err(StoreError::NotFound) {
            return Ok(());
        }
        let mut at = dir;
        while let Some((above, _)) = at.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
            let empty = self.store.list(Some(within), above)?.is_empty()
                && self.store.read(Some(within), above)?.is_empty();
            if !empty {
                break;
            }
            self.store.remove(Some(within), above)?;
            at = above;
        }
        Ok(())
    }

    /// A task that detaches an interface: asks, waits for at most ten seconds as libxl does, then
    /// removes. `domain` may be any; the task polls.
    pub fn detach_vif(&self, vif: Vif) -> Detach {
        Detach { toolstack: self.clone(), vif, deadline: None, forced: false }
    }

    /// The state of an interface's two ends, front and back; `None` where there is none or not a
    /// number.
    pub fn states(&self, vif: &Vif) -> (Option<u32>, Option<u32>) {
        let state = |dir: String| self.store.get(&format!("{dir}/state"))?.parse().ok();
        (state(vif.front_dir()), state(vif.back_dir()))
    }
}

/// libxl's patience with a backend.
const DETACH_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(1);

/// The task of [`Toolstack::detach_vif`].
#[derive(Debug)]
pub struct Detach {
    toolstack: Toolstack,
    vif: Vif,
    deadline: Option<Instant>,
    /// The backend did not answer in time.
    pub forced: bool,
}

impl Detach {
    /// One look; true when the interface is gone.
    pub fn poll(&mut self, now: Instant) -> bool {
        let deadline = match self.deadline {
            Some(deadline) => deadline,
            None => {
                self.toolstack.begin_detach(&self.vif);
                now + DETACH_TIMEOUT
            }
        };
        self.deadline = Some(deadline);
        let done = self.toolstack.detached(&self.vif);
        self.forced = !done && now >= deadline;
        if done || self.forced {
            self.toolstack.remove_vif(&self.vif);
        }
        done || self.forced
    }

    /// Detaches on a threaded host, blocking this thread.
    pub fn wait(mut self, domain: &Domain) -> bool {
        while !self.poll(domain.host().now()) {
            std::thread::sleep(POLL);
        }
        !self.forced
    }
}

impl Task for Detach {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        if self.poll(ctx.now) { Next::Done } else { Next::Sleep(POLL) }
    }
}
