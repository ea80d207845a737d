//! What a client and its backend have agreed on, as every report has it.

use core::fmt::{self, Display, Formatter};

use packet_views::features::Features;
use serde::Serialize;

use crate::measure::Agreed;

/// What was agreed, which may be less than what was asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Agreement {
    /// Queues of the vif; none if they never came to an agreement.
    queues: usize,
    /// An event channel for each ring.
    split_event_channels: bool,
    /// Packets of several pages.
    scatter_gather: bool,
    /// Checksums are left to the other end.
    checksum_offload: bool,
    /// Large packets.
    gso: bool,
}

impl From<Option<Agreed>> for Agreement {
    fn from(agreed: Option<Agreed>) -> Agreement {
        let features = agreed.map_or(Features::NONE, |agreed| agreed.features);
        Agreement {
            queues: agreed.map_or(0, |agreed| agreed.queues),
            split_event_channels: agreed.is_some_and(|agreed| agreed.split),
            scatter_gather: features.scatter_gather,
            checksum_offload: features.checksum_v4,
            gso: features.gso_v4,
        }
    }
}

impl Display for Agreement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.queues == 0 {
            return f.write_str("nothing: they were never connected");
        }
        let on = |feature| if feature { "on" } else { "off" };
        let s = if self.queues == 1 { "" } else { "s" };
        write!(f, "{} queue{s}, split channels {}, ", self.queues, on(self.split_event_channels))?;
        let (sg, checksum) = (on(self.scatter_gather), on(self.checksum_offload));
        write!(f, "scatter-gather {sg}, checksum offload {checksum}, GSO {}", on(self.gso))
    }
}
