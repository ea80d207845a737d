//! Xenstore over the page and the port that Xen has set up for us.

pub mod client;
pub mod wire;

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use spin::Mutex;
    use xen_grant::Words;
    use xen_netfront::platform::Port;
    use xen_netfront::store::StoreError;

    use super::client::{Client, Line};
    use crate::hypercall::{self, Errno, rings::Ring};
    use crate::{events, memory};

    /// xenstored, at the other end of this port.
    pub struct Daemon(Port);

    impl Line for Daemon {
        fn notify(&self) {
            events::notify(self.0);
        }

        fn wait(&self) {
            events::wait_for(self.0);
        }
    }

    static CLIENT: Mutex<Option<Client<'static, Daemon>>> = Mutex::new(None);

    /// Finds xenstore, at the start and in a domain that has been resumed. Where there is none,
    /// every request fails.
    pub fn init() -> Result<(), Errno> {
        let found = find()?;
        let mut client = CLIENT.lock();
        match (&mut *client, found) {
            (Some(client), Some((page, line))) => client.resume(page, line),
            (client, found) => *client = found.map(|(page, line)| Client::new(page, line)),
        }
        if client.is_none() {
            log::warn!("no xenstore: there will be no devices");
        }
        Ok(())
    }

    fn find() -> Result<Option<(&'static Words, Daemon)>, Errno> {
        let Some((gfn, port)) = Ring::Xenstore.find(hypercall::get_param) else { return Ok(None) };
        // SAFETY: Xen says that xenstore's page is there.
        let Some(page) = (unsafe { memory::map_special(gfn) }) else { return Ok(None) };
        Ok(Some((page, Daemon(events::opened(port.get())?))))
    }

    /// Talks to xenstore. Locks taken meanwhile: none but the heap's and the log's.
    pub fn with<T>(
        talk: impl FnOnce(&mut Client<'static, Daemon>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        const NOT_CONNECTED: StoreError = StoreError::Other(107);
        let mut client = CLIENT.lock();
        let client = client.as_mut().ok_or(NOT_CONNECTED)?;
        let outcome = talk(client);
        if client.take_news() {
            events::remember();
        }
        outcome
    }
}
