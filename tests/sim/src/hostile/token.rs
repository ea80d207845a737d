//! The words of a script: each type of field, its text form, and how chance picks it.
//!
//! Chance prefers values at the edges of what a driver has to check.

use core::fmt::{self, Write};

use fastrand::Rng;

/// A field of a step.
pub(super) trait Token: Sized {
    /// Writes it as one word without white space or `;`.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    /// Reads it back.
    fn parse(word: &str) -> Option<Self>;
    /// Any value, the nasty ones first.
    fn random(rng: &mut Rng) -> Self;
}

macro_rules! numbers {
    ($($type:ty: $($edge:expr),*;)*) => {$(
        impl Token for $type {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }

            fn parse(word: &str) -> Option<$type> {
                word.parse().ok()
            }

            fn random(rng: &mut Rng) -> $type {
                let edges = [$($edge),*];
                match rng.usize(..edges.len() + edges.len() / 3) {
                    edge if edge < edges.len() => edges[edge],
                    _ => rng.u64(..) as $type,
                }
            }
        }
    )*};
}

numbers! {
    u8: 0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 64, 255;
    u16: 0, 1, 2, 3, 4, 5, 8, 12, 13, 14, 15, 60, 127, 128, 255, 256, 257, 1514, 4095, 4096, 4097,
        32767, 32768, 65534, 65535;
    i16: 0, 1, -1, -2, -3, 13, 14, 60, 1514, 4095, 4096, 4097, 32767, -32768;
    i32: 0, 1, -1, 2, 127, 128, 254, 255, 256, 257, -255, -256, -257, 65536, i32::MAX, i32::MIN;
    u32: 0, 1, 2, 7, 8, 9, 255, 256, 257, 511, 512, 4095, 4096, 65535, 65536, 0x7fff_ffff,
        0x8000_0000, 0xffff_ff00, 0xffff_fffe, u32::MAX;
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl Token for $name {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)* })
            }

            fn parse(word: &str) -> Option<$name> {
                match word {
                    $($word => Some($name::$variant),)*
                    _ => None,
                }
            }

            fn random(rng: &mut Rng) -> $name {
                let all = [$($name::$variant),*];
                all[rng.usize(..all.len())]
            }
        }
    };
}

words! {
    /// One of a vif's two rings.
    Ring {
        /// Frontend to backend.
        Tx "tx",
        /// Backend to frontend.
        Rx "rx",
    }
}

words! {
    /// A word of a ring's header.
    Header {
        /// Request producer.
        ReqProd "req_prod",
        /// When requests notify.
        ReqEvent "req_event",
        /// Response producer.
        RspProd "rsp_prod",
        /// When responses notify.
        RspEvent "rsp_event",
    }
}

impl Header {
    /// Which word of the page.
    pub fn word(self) -> usize {
        match self {
            Header::ReqProd => 0,
            Header::ReqEvent => 1,
            Header::RspProd => 2,
            Header::RspEvent => 3,
        }
    }
}

/// What goes into a header word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This: `=N`.
    Exact(u32),
    /// What the page says now, and so many more: `page+N`.
    Page(i32),
    /// Our own honest producer index, and so many more: `own-N`.
    Own(i32),
}

impl Token for Value {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Exact(value) => write!(f, "={value}"),
            Value::Page(delta) => write!(f, "page{delta:+}"),
            Value::Own(delta) => write!(f, "own{delta:+}"),
        }
    }

    fn parse(word: &str) -> Option<Value> {
        if let Some(value) = word.strip_prefix('=') {
            Some(Value::Exact(value.parse().ok()?))
        } else if let Some(delta) = word.strip_prefix("page") {
            Some(Value::Page(delta.parse().ok()?))
        } else {
            Some(Value::Own(word.strip_prefix("own")?.parse().ok()?))
        }
    }

    fn random(rng: &mut Rng) -> Value {
        match rng.u8(..5) {
            0 => Value::Exact(Token::random(rng)),
            1 | 2 => Value::Page(Token::random(rng)),
            _ => Value::Own(Token::random(rng)),
        }
    }
}

/// The id of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// This.
    Exact(u16),
    /// The oldest request that is not answered yet: `next`. It counts as answered then.
    Next,
    /// The id that was answered last, once more: `last`.
    Last,
}

impl Token for Id {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Exact(id) => write!(f, "{id}"),
            Id::Next => f.write_str("next"),
            Id::Last => f.write_str("last"),
        }
    }

    fn parse(word: &str) -> Option<Id> {
        match word {
            "next" => Some(Id::Next),
            "last" => Some(Id::Last),
            number => Some(Id::Exact(number.parse().ok()?)),
        }
    }

    fn random(rng: &mut Rng) -> Id {
        match rng.u8(..6) {
            0 => Id::Exact(Token::random(rng)),
            1 => Id::Last,
            _ => Id::Next,
        }
    }
}

/// A grant reference, by what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gref {
    /// This: `=N`.
    Exact(u32),
    /// A good page, by number: `page3`. For a backend: one of the pages it has been granted.
    Page(u8),
    /// The page of a ring: `ring-tx`.
    RingPage(Ring),
    /// Granted for reading only: `readonly`.
    ReadOnly,
    /// An entry that permits nothing: `ended`.
    Ended,
    /// An entry with a frame that does not exist: `noframe`.
    NoFrame,
    /// An entry for another domain: `other`.
    Other,
}

impl Token for Gref {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gref::Exact(gref) => write!(f, "={gref}"),
            Gref::Page(page) => write!(f, "page{page}"),
            Gref::RingPage(ring) => {
                f.write_str("ring-")?;
                ring.write(f)
            }
            Gref::ReadOnly => f.write_str("readonly"),
            Gref::Ended => f.write_str("ended"),
            Gref::NoFrame => f.write_str("noframe"),
            Gref::Other => f.write_str("other"),
        }
    }

    fn parse(word: &str) -> Option<Gref> {
        Some(match word {
            "readonly" => Gref::ReadOnly,
            "ended" => Gref::Ended,
            "noframe" => Gref::NoFrame,
            "other" => Gref::Other,
            word => {
                if let Some(gref) = word.strip_prefix('=') {
                    Gref::Exact(gref.parse().ok()?)
                } else if let Some(ring) = word.strip_prefix("ring-") {
                    Gref::RingPage(Ring::parse(ring)?)
                } else {
                    Gref::Page(word.strip_prefix("page")?.parse().ok()?)
                }
            }
        })
    }

    fn random(rng: &mut Rng) -> Gref {
        match rng.u8(..12) {
            0 => Gref::Exact(Token::random(rng)),
            1 => Gref::RingPage(Token::random(rng)),
            2 => Gref::ReadOnly,
            3 => Gref::Ended,
            4 => Gref::NoFrame,
            5 => Gref::Other,
            _ => Gref::Page(rng.u8(..8)),
        }
    }
}

/// A number of milliseconds. Chance keeps it short, or just beyond a watchdog's ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u16);

impl Token for Millis {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }

    fn parse(word: &str) -> Option<Millis> {
        u16::parse(word).map(Millis)
    }

    fn random(rng: &mut Rng) -> Millis {
        Millis(match rng.u8(..8) {
            0 => 10_100,
            1 => rng.u16(..3000),
            _ => rng.u16(..50),
        })
    }
}

/// Bytes, quoted and escaped: `"\xff\x20"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

impl Token for Text {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for &byte in &self.0 {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'/' | b'_' | b':' | b'.' => {
                    f.write_char(char::from(byte))?;
                }
                other => write!(f, "\\x{other:02x}")?,
            }
        }
        f.write_char('"')
    }

    fn parse(word: &str) -> Option<Text> {
        let mut rest = word.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
        let mut bytes = Vec::new();
        while let Some((&first, after)) = rest.split_first() {
            if first == b'\\' {
                let hex = core::str::from_utf8(after.strip_prefix(b"x")?.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                rest = &after[3..];
            } else {
                bytes.push(first);
                rest = after;
            }
        }
        Some(Text(bytes))
    }

    /// Values that a parser of numbers, addresses or paths should choke on gracefully.
    fn random(rng: &mut Rng) -> Text {
        const VALUES: [&str; 20] = [
            "",
            "0",
            "1",
            "2",
            "4",
            "6",
            "7",
            "8",
            "255",
            "65536",
            "4294967295",
            "4294967296",
            "99999999999999999999999",
            "-1",
            "0x10",
            " 1",
            "1 ",
            "00:16:3e:zz:00:00",
            "1\0",
            "\u{fc}",
        ];
        Text(match rng.u8(..8) {
            0 => (0..rng.usize(..40)).map(|_| rng.u8(..)).collect(),
            1 => vec![b'9'; rng.usize(1..4097)],
            2 => rng.u32(..).to_string().into_bytes(),
            _ => VALUES[rng.usize(..VALUES.len())].as_bytes().to_vec(),
        })
    }
}

/// A key below our own directory, quoted like [`Text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub String);

impl Token for Path {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text(self.0.clone().into_bytes()).write(f)
    }

    fn parse(word: &str) -> Option<Path> {
        Some(Path(String::from_utf8(Text::parse(word)?.0).ok()?))
    }

    fn random(rng: &mut Rng) -> Path {
        const KEYS: [&str; 34] = [
            "state",
            "tx-ring-ref",
            "rx-ring-ref",
            "event-channel",
            "event-channel-tx",
            "event-channel-rx",
            "request-rx-copy",
            "feature-rx-notify",
            "feature-sg",
            "feature-gso-tcpv4",
            "feature-gso-tcpv6",
            "feature-no-csum-offload",
            "feature-ipv6-csum-offload",
            "feature-rx-copy",
            "feature-rx-flip",
            "feature-split-event-channels",
            "feature-multicast-control",
            "feature-ctrl-ring",
            "request-multicast-control",
            "ctrl-ring-ref",
            "event-channel-ctrl",
            "multi-queue-num-queues",
            "multi-queue-max-queues",
            "queue-0/tx-ring-ref",
            "queue-0/rx-ring-ref",
            "queue-0/event-channel",
            "xdp-headroom",
            "carrier",
            "mac",
            "mtu",
            "online",
            "hotplug-status",
            "handle",
            "disconnect",
        ];
        Path(match rng.u8(..12) {
            0 => format!("junk-{}", rng.u8(..)),
            1 => format!("queue-{}/tx-ring-ref", u32::random(rng)),
            _ => KEYS[rng.usize(..KEYS.len())].to_owned(),
        })
    }
}
