//! Event channels (xen/event_channel.h): a pending and a mask bit per port, and the upcall.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, PoisonError};

use packet_views::Wake;
use xen_grant::DomId;
use xen_netfront::platform::{EventError, Port};

use crate::Domain;
use crate::domain::DomainInner;
use crate::host::{Delivery, HostInner, lock};

/// No such domain (`ESRCH`).
pub const ESRCH: EventError = EventError(3);
/// The port is not what it should be (`EINVAL`).
pub const EINVAL: EventError = EventError(22);
/// No free port (`ENOSPC`).
pub const ENOSPC: EventError = EventError(28);
/// Port 0 is no port; 1 and 2 are taken by the toolstack for xenstore and the console.
const FIRST_PORT: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Free,
    Unbound { peer: DomId },
    Interdomain { peer: DomId, remote: u32 },
}

#[derive(Clone)]
struct PortState {
    channel: Channel,
    /// Who waits for its events.
    wake: Option<Wake>,
    pending: bool,
    masked: bool,
    /// Tells a port from an earlier one with its number, for events that are under way.
    generation: u64,
    /// How often its events were said to be handled: with progress, and without.
    handled: (u64, u64),
}

const FREE: PortState = PortState {
    channel: Channel::Free,
    wake: None,
    pending: false,
    masked: false,
    generation: 0,
    handled: (0, 0),
};

/// What one domain has.
struct DomainEvents {
    ports: Vec<PortState>,
    /// The last port it may have.
    last: usize,
    /// A watch has fired.
    store: bool,
    woken: Arc<Condvar>,
}

impl DomainEvents {
    fn get(&mut self, port: u32) -> Option<&mut PortState> {
        let state = self.ports.get_mut(port as usize)?;
        (state.channel != Channel::Free).then_some(state)
    }

    fn upcall(&self) -> bool {
        self.store || self.ports.iter().any(|port| port.pending && !port.masked)
    }
}

/// The event channels of all domains.
#[derive(Default)]
pub(crate) struct Events {
    domains: BTreeMap<u16, DomainEvents>,
    generation: u64,
}

impl Events {
    pub(crate) fn add(&mut self, id: DomId, last: u32) {
        self.domains.entry(id.0).or_insert_with(|| DomainEvents {
            ports: vec![FREE; FIRST_PORT],
            last: last as usize,
            store: false,
            woken: Arc::default(),
        });
    }

    pub(crate) fn remove(&mut self, id: DomId) {
        self.close_all(id);
        if let Some(gone) = self.domains.remove(&id.0) {
            gone.woken.notify_all();
        }
    }

    pub(crate) fn close_all(&mut self, id: DomId) {
        for port in self.open_ports(id) {
            self.close(id, port);
        }
    }

    fn open_ports(&self, id: DomId) -> Vec<Port> {
        let Some(domain) = self.domains.get(&id.0) else { return Vec::new() };
        let open = domain.ports.iter().enumerate().filter(|(_, p)| p.channel != Channel::Free);
        open.filter_map(|(number, _)| Port::new(number as u32)).collect()
    }

    fn open(&mut self, id: DomId, channel: Channel) -> Result<Port, EventError> {
        self.generation += 1;
        let generation = self.generation;
        let domain = self.domains.get_mut(&id.0).ok_or(ESRCH)?;
        let (ports, last) = (&mut domain.ports, domain.last);
        let taken = |p: &&PortState| p.channel != Channel::Free;
        let number = FIRST_PORT + ports[FIRST_PORT..].iter().take_while(taken).count();
        if number > last {
            return Err(ENOSPC);
        }
        if number == ports.len() {
            ports.push(FREE);
        }
        ports[number] = PortState { channel, generation, ..FREE };
        Port::new(number as u32).ok_or(EINVAL)
    }

    /// Notes whom events on a port wake.
    pub(crate) fn set_wake(&mut self, id: DomId, port: Port, wake: Wake) {
        if let Some(state) = self.domains.get_mut(&id.0).and_then(|d| d.get(port.get())) {
            state.wake = Some(wake);
        }
    }

    pub(crate) fn alloc_unbound(&mut self, id: DomId, peer: DomId) -> Result<Port, EventError> {
        self.open(id, Channel::Unbound { peer })
    }

    pub(crate) fn bind(
        &mut self,
        id: DomId,
        peer: DomId,
        remote: Port,
    ) -> Result<Port, EventError> {
        let theirs = self.domains.get_mut(&peer.0).ok_or(ESRCH)?.get(remote.get()).ok_or(EINVAL)?;
        if theirs.channel != (Channel::Unbound { peer: id }) {
            return Err(EINVAL);
        }
        let port = self.open(id, Channel::Interdomain { peer, remote: remote.get() })?;
        if let Some(theirs) = self.domains.get_mut(&peer.0).and_then(|d| d.get(remote.get())) {
            theirs.channel = Channel::Interdomain { peer: id, remote: port.get() };
        }
        Ok(port)
    }

    pub(crate) fn close(&mut self, id: DomId, port: Port) {
        let Some(state) = self.domains.get_mut(&id.0).and_then(|d| d.get(port.get())) else {
            return;
        };
        let channel = std::mem::replace(state, FREE).channel;
        match channel {
            Channel::Interdomain { peer, remote } => {
                if let Some(theirs) = self.domains.get_mut(&peer.0).and_then(|d| d.get(remote)) {
                    theirs.channel = Channel::Unbound { peer: id };
                }
            }
            Channel::Unbound { peer: _ } | Channel::Free => {}
        }
    }

    pub(crate) fn count_handled(&mut self, id: DomId, port: Port, progress: bool) {
        if let Some(state) = self.domains.get_mut(&id.0).and_then(|d| d.get(port.get())) {
            match progress {
                true => state.handled.0 += 1,
                false => state.handled.1 += 1,
            }
        }
    }

    /// The other end of a port.
    fn remote(&mut self, id: DomId, port: Port) -> Result<Option<(DomId, u32, u64)>, EventError> {
        let ours = self.domains.get_mut(&id.0).ok_or(ESRCH)?.get(port.get()).ok_or(EINVAL)?;
        match ours.channel {
            Channel::Interdomain { peer, remote } => {
                let theirs = self.domains.get_mut(&peer.0).and_then(|d| d.get(remote));
                Ok(theirs.map(|theirs| (peer, remote, theirs.generation)))
            }
            Channel::Unbound { peer: _ } => Ok(None),
            Channel::Free => Err(EINVAL),
        }
    }
}

impl HostInner {
    /// `EVTCHNOP_send`, with whatever chance does to the event.
    pub(crate) fn send(&self, from: &DomainInner, port: Port) {
        let remote = lock(&self.events).remote(from.id, port);
        match remote {
            Ok(Some((domain, port, generation))) => {
                if self.threaded() {
                    self.raise(domain, port, Some(generation));
                } else if !self.chance(self.chaos().lost) {
                    self.deliver_late(Delivery::Event { domain, port, generation });
                }
            }
            Ok(None) => {}
            Err(_) => from.counters.bad_notifies.add(1),
        }
    }

    /// Makes a port pending, unless it is a later one than was meant.
    pub(crate) fn raise(&self, id: DomId, port: u32, generation: Option<u64>) {
        let wake = {
            let mut events = lock(&self.events);
            let Some(domain) = events.domains.get_mut(&id.0) else { return };
            let Some(state) = domain.get(port) else { return };
            if generation.is_some_and(|meant| meant != state.generation) || state.pending {
                return;
            }
            state.pending = true;
            let wake = state.wake.clone();
            domain.woken.notify_all();
            wake
        };
        if let Some(wake) = wake {
            wake.wake();
        }
        if let Some(domain) = self.domain(id) {
            domain.counters.events.add(1);
        }
    }

    /// Tells a domain that a watch has fired.
    pub(crate) fn raise_store(&self, id: DomId) {
        if let Some(domain) = lock(&self.events).domains.get_mut(&id.0) {
            domain.store = true;
            domain.woken.notify_all();
        }
    }

    /// One event that nobody sent, on a port that chance picks.
    pub(crate) fn raise_spurious(&self) {
        let open: Vec<(DomId, Port)> = {
            let events = lock(&self.events);
            let ids = events.domains.keys().map(|&id| DomId(id));
            ids.flat_map(|id| events.open_ports(id).into_iter().map(move |port| (id, port)))
                .collect()
        };
        if let Some((id, port)) = self.with_rng(|rng| rng.choice(open)) {
            self.raise(id, port.get(), None);
        }
    }
}

/// The upcall: what a domain's interrupt handler would do.
impl Domain {
    /// Takes the ports that are pending and not masked, and clears them.
    pub fn take_pending(&self) -> Vec<Port> {
        let mut ports = Vec::new();
        self.drain_pending(&mut ports);
        ports
    }

    /// [`take_pending`](Domain::take_pending) without an allocation: appends to `into`.
    pub fn drain_pending(&self, into: &mut Vec<Port>) {
        if !self.is_alive() {
            return;
        }
        let before = into.len();
        if let Some(domain) = lock(&self.host.events).domains.get_mut(&self.me.id.0) {
            for (number, port) in domain.ports.iter_mut().enumerate() {
                if port.pending && !port.masked {
                    port.pending = false;
                    into.extend(Port::new(number as u32));
                }
            }
        }
        if into.len() > before {
            self.me.counters.upcalls.add(1);
        }
    }

    /// Whether a watch has fired since this was last asked, whichever it was.
    pub fn take_store_event(&self) -> bool {
        match lock(&self.host.events).domains.get_mut(&self.me.id.0) {
            Some(domain) => std::mem::take(&mut domain.store),
            None => false,
        }
    }

    /// Whether a port is pending, masked or not.
    pub fn is_pending(&self, port: Port) -> bool {
        let mut events = lock(&self.host.events);
        let state = events.domains.get_mut(&self.me.id.0).and_then(|d| d.get(port.get()));
        state.is_some_and(|state| state.pending)
    }

    /// Masks a port: it may become pending, but takes no part in the upcall.
    pub fn mask(&self, port: Port) {
        self.set_mask(port, true);
    }

    /// Unmasks a port; if it is pending, the upcall follows.
    pub fn unmask(&self, port: Port) {
        self.set_mask(port, false);
    }

    fn set_mask(&self, port: Port, masked: bool) {
        let mut events = lock(&self.host.events);
        let Some(domain) = events.domains.get_mut(&self.me.id.0) else { return };
        if let Some(state) = domain.get(port.get()) {
            state.masked = masked;
            domain.woken.notify_all();
        }
    }

    /// How often the driver has said that it had handled a port's events
    /// ([`Platform::handled`](xen_netfront::platform::Platform::handled)): with progress, and
    /// without.
    pub fn times_handled(&self, port: Port) -> (u64, u64) {
        let mut events = lock(&self.host.events);
        let state = events.domains.get_mut(&self.me.id.0).and_then(|d| d.get(port.get()));
        state.map_or((0, 0), |state| state.handled)
    }

    /// Makes one of our own ports pending, as a spurious event would.
    pub fn raise(&self, port: Port) {
        self.host.raise(self.me.id, port.get(), None);
    }

    /// The ports that are open, in order.
    pub fn open_ports(&self) -> Vec<Port> {
        lock(&self.host.events).open_ports(self.me.id)
    }

    /// Whether an upcall is due: a port is pending and not masked, or a watch has fired.
    pub fn upcall_pending(&self) -> bool {
        let events = lock(&self.host.events);
        events.domains.get(&self.me.id.0).is_some_and(DomainEvents::upcall)
    }

    /// Blocks this thread until an upcall is due, or for `timeout`. Tells whether one is due, and
    /// leaves it pending. On a deterministic host it does not block.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut events = lock(&self.host.events);
        let Some(woken) = events.domains.get(&self.me.id.0).map(|d| d.woken.clone()) else {
            return false;
        };
        if self.host.threaded() {
            let id = self.me.id.0;
            let idle = |events: &mut Events| events.domains.get(&id).is_some_and(|d| !d.upcall());
            events = woken
                .wait_timeout_while(events, timeout, idle)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        events.domains.get(&self.me.id.0).is_some_and(DomainEvents::upcall)
    }

    /// Ends a [`wait`](Domain::wait) from another thread, as if a watch had fired.
    pub fn wake(&self) {
        self.host.raise_store(self.me.id);
    }
}
