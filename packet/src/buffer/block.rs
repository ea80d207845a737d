//! The memory behind a buffer, chosen at compile time.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;

/// A block of memory with one owner.
pub trait Block: Sized + Send + 'static {
    /// The same block, read by several owners.
    type Shared: SharedBlock<Block = Self>;

    /// All its bytes.
    fn bytes(&self) -> &[u8];

    /// The bytes of `range`, to write; `None` where the block does not have them.
    fn range_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]>;

    /// Makes the block fit for whatever peer is told of the bytes `shown`, even while several owners read
    /// it: where a device shows peers whole blocks, all other bytes are cleared. A block that is never
    /// shown has nothing to conceal.
    fn conceal(&mut self, shown: Range<usize>) {
        let _nobody_sees_it = shown;
    }

    /// Lets several owners read it.
    fn share(self) -> Self::Shared;
}

/// A block of memory that its owners only read.
pub trait SharedBlock: Sized + Clone + Send + 'static {
    /// The same block with one owner.
    type Block: Block<Shared = Self>;

    /// All its bytes.
    fn bytes(&self) -> &[u8];

    /// The block alone, if nobody else has it.
    fn try_unshare(self) -> Result<Self::Block, Self>;
}

/// A block on the heap, of any size and alignment. It can't be granted; it is for devices that
/// copy anyway.
pub struct HeapBlock(Arc<Box<[u8]>>);

impl HeapBlock {
    /// A zeroed block.
    pub fn new(len: usize) -> HeapBlock {
        HeapBlock(Arc::new(alloc::vec![0; len].into_boxed_slice()))
    }
}

impl Block for HeapBlock {
    type Shared = SharedHeapBlock;

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn range_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.0)?.get_mut(range)
    }

    fn share(self) -> SharedHeapBlock {
        SharedHeapBlock(self.0)
    }
}

/// A heap block that its owners only read.
#[derive(Clone)]
pub struct SharedHeapBlock(Arc<Box<[u8]>>);

impl SharedBlock for SharedHeapBlock {
    type Block = HeapBlock;

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn try_unshare(mut self) -> Result<HeapBlock, SharedHeapBlock> {
        if Arc::get_mut(&mut self.0).is_some() { Ok(HeapBlock(self.0)) } else { Err(self) }
    }
}

impl core::fmt::Debug for HeapBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HeapBlock({} bytes)", self.0.len())
    }
}

impl core::fmt::Debug for SharedHeapBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SharedHeapBlock({} bytes)", self.0.len())
    }
}
