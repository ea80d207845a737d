//! Xenstore over the page and the port that Xen has set up for us.

pub mod client;
pub mod wire;

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use spin::Mutex;
    use xen_grant::{Gfn, Words};
    use xen_netfront::platform::Port;
    use xen_netfront::store::StoreError;

    use super::client::{Client, Line};
    use crate::hypercall::{self, Errno, abi};
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

    /// Finds xenstore.
    pub fn init() -> Result<(), Errno> {
        let (page, line) = find()?;
        *CLIENT.lock() = Some(Client::new(page, line));
        Ok(())
    }

    /// Finds it again in a domain that has been resumed.
    pub fn resume() -> Result<(), Errno> {
        let (page, line) = find()?;
        if let Some(client) = CLIENT.lock().as_mut() {
            client.resume(page, line);
        }
        Ok(())
    }

    fn find() -> Result<(&'static Words, Daemon), Errno> {
        const ENODEV: Errno = Errno(19);
        let gfn = Gfn(hypercall::get_param(abi::HVM_PARAM_STORE_PFN)?);
        let port = hypercall::get_param(abi::HVM_PARAM_STORE_EVTCHN)?;
        let port = events::opened(u32::try_from(port).map_err(|_| ENODEV)?)?;
        // SAFETY: Xen says that xenstore's page is there.
        let page = unsafe { memory::map_special(gfn) }.ok_or(ENODEV)?;
        Ok((page, Daemon(port)))
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
