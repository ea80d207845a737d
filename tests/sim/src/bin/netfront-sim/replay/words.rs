//! Numbers in a file of either byte order.

/// Bytes, and in which order its numbers are.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether the highest byte is the first.
    pub big: bool,
}

impl Words<'_> {
    /// A number of 16 bits; `None` beyond the end.
    pub fn u16(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    /// A number of 32 bits; `None` beyond the end.
    pub fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }
}
