//! What a hostile peer does, step by step, as text and as values.
//!
//! One step a line, or several separated by `;`. What follows a `#` is a remark.
//!
//! ```
//! use xen_sim::hostile::{Script, Side};
//!
//! let text = "index tx rsp_prod own+300; notify # far ahead";
//! let script: Script = text.parse()?;
//! assert_eq!(script.to_string(), "index tx rsp_prod own+300\nnotify\n");
//!
//! let mut rng = fastrand::Rng::with_seed(7);
//! let any = Script::random(&mut rng, Side::Backend, 20);
//! assert_eq!(any.to_string().parse::<Script>()?, any);
//! # Ok::<(), xen_sim::hostile::BadScript>(())
//! ```

use core::fmt;
use core::str::FromStr;

use fastrand::Rng;

use super::token::{Gref, Header, Id, Millis, Path, Ring, Text, Token, Value};

/// Who can do a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The backend only.
    Backend,
    /// The client only.
    Client,
    /// Either.
    Both,
}

macro_rules! steps {
    ($($(#[$doc:meta])* $side:ident $word:literal $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        /// One thing that a hostile peer does. A step that is not for its side does nothing.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* },)*
        }

        impl Step {
            /// Who can do it.
            pub fn side(&self) -> Side {
                match self { $(Step::$name { .. } => Side::$side,)* }
            }

            /// Any step that this side can do.
            pub fn random(rng: &mut Rng, side: Side) -> Step {
                type Make = fn(&mut Rng) -> Step;
                let all: &[(Side, Make)] = &[
                    $((Side::$side, |_rng| Step::$name { $($field: Token::random(_rng),)* }),)*
                ];
                let fits = |&&(whose, _): &&(Side, Make)| {
                    whose == side || whose == Side::Both || side == Side::Both
                };
                let count = all.iter().filter(fits).count();
                let nth = rng.usize(..count);
                match all.iter().filter(fits).nth(nth) {
                    Some((_, make)) => make(rng),
                    None => Step::Notify {},
                }
            }
        }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Step::$name { $($field,)* } => {
                        f.write_str($word)?;
                        $(
                            f.write_str(" ")?;
                            $field.write(f)?;
                        )*
                        Ok(())
                    })*
                }
            }
        }

        impl FromStr for Step {
            type Err = BadScript;

            fn from_str(text: &str) -> Result<Step, BadScript> {
                let bad = || BadScript(text.to_owned());
                let mut words = text.split_whitespace();
                let step = match words.next() {
                    $(Some($word) => Step::$name {
                        $($field: words.next().and_then(Token::parse).ok_or_else(bad)?,)*
                    },)*
                    Some(_) | None => return Err(bad()),
                };
                if words.next().is_some() { Err(bad()) } else { Ok(step) }
            }
        }
    };
}

steps! {
    /// Writes a word of a ring's header.
    Both "index" Index {
        /// Which ring.
        ring: Ring,
        /// Which word.
        word: Header,
        /// What goes there.
        value: Value,
    }
    /// Writes a slot's words as they are (a receive slot takes two).
    Both "slot" Slot {
        /// Which ring.
        ring: Ring,
        /// Which slot.
        slot: u8,
        /// First word.
        a: u32,
        /// Second word.
        b: u32,
        /// Third word.
        c: u32,
    }
    /// Writes noise over a whole ring page, header included.
    Both "fill" Fill {
        /// Which ring.
        ring: Ring,
        /// Where the noise comes from.
        seed: u32,
    }
    /// Publishes our own producer index: what was put into the ring so far.
    Both "push" Push {
        /// Which ring.
        ring: Ring,
    }
    /// Sends an event.
    Both "notify" Notify {}
    /// Sends so many events.
    Both "storm" Storm {
        /// How many.
        count: u8,
    }
    /// Writes a key in our own directory.
    Both "key" Key {
        /// Which.
        path: Path,
        /// Its value.
        value: Text,
    }
    /// Removes a key in our own directory.
    Both "unkey" Unkey {
        /// Which.
        path: Path,
    }
    /// Writes our state and does not follow the victim's from then on.
    Both "state" State {
        /// The state.
        state: u8,
    }
    /// Removes our whole directory.
    Both "vanish" Vanish {}
    /// Closes our event channel.
    Both "close-port" ClosePort {}
    /// Lets go of everything of this connection without a word.
    Both "drop" Drop {}
    /// Follows the victim's state again and waits for a new connection.
    Both "connect" Connect {}
    /// Does nothing for so many milliseconds.
    Both "silence" Silence {
        /// How long.
        millis: Millis,
    }
    /// Behaves for so many rounds.
    Both "honest" Honest {
        /// How many.
        rounds: u8,
    }
    /// Records every page that the victim lets us see.
    Both "dump" Dump {}
    /// Maps a page of the victim's and keeps it.
    Backend "map" Map {
        /// Which.
        gref: Gref,
    }
    /// Maps the page of the oldest unanswered request of a ring and keeps it.
    Backend "keep" Keep {
        /// Which ring.
        ring: Ring,
    }
    /// Ends what was mapped and kept.
    Backend "unmap" Unmap {}
    /// Answers so many requests as one should.
    Backend "respond" Respond {
        /// Which ring.
        ring: Ring,
        /// How many.
        count: u8,
    }
    /// Puts a transmit response into the ring.
    Backend "tx-response" TxResponse {
        /// Whose.
        id: Id,
        /// Its status.
        status: i16,
    }
    /// Puts a receive response into the ring.
    Backend "rx-response" RxResponse {
        /// Whose.
        id: Id,
        /// Where the data begins.
        offset: u16,
        /// Its flags.
        flags: u16,
        /// Its status.
        status: i16,
    }
    /// Puts an extra into a slot of the receive ring.
    Backend "rx-extra" RxExtra {
        /// Its type.
        kind: u8,
        /// Its flags.
        flags: u8,
        /// Bytes 2 and 3 of it.
        low: u16,
        /// Bytes 4 to 7.
        high: u32,
    }
    /// Answers receive requests with a large packet: responses of the same status each, and a GSO
    /// extra behind the first.
    Backend "rx-gso" RxGso {
        /// How many slots, without the extra's.
        slots: u8,
        /// The status of each.
        status: i16,
        /// The GSO size.
        gso: u16,
        /// The GSO type.
        kind: u8,
    }
    /// Puts a transmit request into the ring.
    Client "tx-request" TxRequest {
        /// Which page.
        gref: Gref,
        /// Where the data begins.
        offset: u16,
        /// Its flags.
        flags: u16,
        /// Its id.
        id: u16,
        /// How long it is.
        size: u16,
    }
    /// Puts a chain of transmit requests of the same size each into the ring.
    Client "tx-chain" TxChain {
        /// Which page, for all.
        gref: Gref,
        /// How many slots.
        slots: u8,
        /// What the first says the whole is.
        total: u16,
        /// What the others say each is.
        size: u16,
    }
    /// The same with a GSO extra behind the first, and a blank checksum.
    Client "tx-gso" TxGso {
        /// Which page, for all.
        gref: Gref,
        /// How many slots, without the extra's.
        slots: u8,
        /// What the first says the whole is.
        total: u16,
        /// What the others say each is.
        size: u16,
        /// The GSO size.
        gso: u16,
        /// The GSO type.
        kind: u8,
    }
    /// Puts an extra into a slot of the transmit ring.
    Client "tx-extra" TxExtra {
        /// Its type.
        kind: u8,
        /// Its flags.
        flags: u8,
        /// Bytes 2 and 3 of it.
        low: u16,
        /// Bytes 4 to 7.
        high: u32,
    }
    /// Puts a receive request into the ring.
    Client "rx-request" RxRequest {
        /// Its id.
        id: u16,
        /// Which page.
        gref: Gref,
    }
    /// Ends the grant of one of our pages, whether it is in use or not.
    Client "revoke" Revoke {
        /// Which.
        page: u8,
    }
    /// Writes a grant entry as it is.
    Client "entry" Entry {
        /// Which.
        gref: Gref,
        /// Its flags.
        flags: u16,
        /// Whom it is for.
        domain: u16,
        /// Its frame.
        frame: u32,
    }
}

/// A line that is no step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadScript(pub String);

impl fmt::Display for BadScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a step of a script: {:?}", self.0)
    }
}

impl core::error::Error for BadScript {}

/// What a hostile peer does, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script(pub Vec<Step>);

impl Script {
    /// So many steps, any that this side can do.
    pub fn random(rng: &mut Rng, side: Side, len: usize) -> Script {
        Script((0..len).map(|_| Step::random(rng, side)).collect())
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Script {
    type Err = BadScript;

    fn from_str(text: &str) -> Result<Script, BadScript> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let steps = lines.flat_map(|line| line.split(';')).filter(|step| !step.trim().is_empty());
        Ok(Script(steps.map(str::parse).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_script_survives_its_text() {
        for seed in 0..300 {
            let mut rng = Rng::with_seed(seed);
            let script = Script::random(&mut rng, Side::Both, 40);
            assert_eq!(script.to_string().parse(), Ok(script), "seed {seed}");
        }
    }

    #[test]
    fn chance_reaches_every_step_of_a_side_and_no_other() {
        let mut rng = Rng::with_seed(1);
        for (side, other) in [(Side::Backend, Side::Client), (Side::Client, Side::Backend)] {
            let steps = Script::random(&mut rng, side, 4000).0;
            assert!(steps.iter().all(|step| step.side() != other));
            let words = |step: &Step| step.to_string().split(' ').next().map(str::to_owned);
            let kinds: std::collections::BTreeSet<_> = steps.iter().map(words).collect();
            assert_eq!(kinds.len(), if side == Side::Backend { 24 } else { 23 }, "{kinds:?}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for bad in
            ["jump", "index tx", "index tx rsp_prod 5", "notify 1", "key state 1", "silence x"]
        {
            assert_eq!(bad.parse::<Script>(), Err(BadScript(bad.to_owned())));
        }
        assert_eq!("# nothing\n\n ; ;".parse::<Script>(), Ok(Script::default()));
    }
}
