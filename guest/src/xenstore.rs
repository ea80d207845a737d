//! Xenstore over the page and the port that Xen has set up for us: the client of `xen-store`.

use core::time::Duration;

use spin::Mutex;
use xen_grant::Words;
use xen_netfront::platform::{Instant, Port};
use xen_store::StoreError;
use xen_store::client::{Client, Transport};

use crate::hypercall::{self, Errno, rings::Ring};
use crate::{clock, events, memory};

/// What xenstored may take for an answer. Where dom0's processor is emulated, or has the domains of a
/// whole host to start, seconds are not unusual.
const LIMIT: Duration = Duration::from_secs(10);

/// xenstored, at the other end of this port.
pub struct Daemon {
    page: &'static Words,
    port: Port,
}

impl Transport for Daemon {
    fn words(&self) -> &Words {
        self.page
    }

    fn notify(&self) {
        events::notify(self.port);
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(clock::now().0)
    }

    fn wait(&self, until: Duration) {
        events::wait_for(self.port, Instant(0) + until);
    }
}

static CLIENT: Mutex<Option<Client<Daemon>>> = Mutex::new(None);

/// Finds xenstore, at the start and in a domain that has been resumed. Where there is none,
/// every request fails.
pub fn init() -> Result<(), Errno> {
    let found = find()?;
    let mut client = CLIENT.lock();
    match (&mut *client, found) {
        (Some(client), Some(daemon)) => client.resume(daemon),
        (client, found) => *client = found.map(|daemon| Client::new(daemon, LIMIT)),
    }
    if client.is_none() {
        log::warn!("no xenstore: there will be no devices");
    }
    Ok(())
}

fn find() -> Result<Option<Daemon>, Errno> {
    let Some((gfn, port)) = Ring::Xenstore.find(hypercall::get_param) else { return Ok(None) };
    // SAFETY: Xen says that xenstore's page is there.
    let Some(page) = (unsafe { memory::map_special(gfn) }) else { return Ok(None) };
    let port = events::opened(port.get())?;
    events::store_opened(port);
    Ok(Some(Daemon { page, port }))
}

/// Talks to xenstore. Locks taken meanwhile: none but the heap's and the log's.
pub fn with<T>(
    talk: impl FnOnce(&mut Client<Daemon>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut client = CLIENT.lock();
    let client = client.as_mut().ok_or(StoreError::Disconnected)?;
    let outcome = talk(client);
    if client.take_news() {
        events::remember();
    }
    outcome
}
