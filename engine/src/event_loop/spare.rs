//! Output buffers for reuse: a large one that is allocated for each turn is memory that the kernel has to hand out and
//! take back each time.

/// Bytes of all buffers kept, and of the largest one worth keeping.
const BYTES_MAX: usize = 4 << 20;
const BUFFER_BYTES_MAX: usize = 2 << 20;
/// Buffers kept.
const BUFFERS_MAX: usize = 256;

/// Empty buffers, the one that was used last on top: it is in the cache.
#[derive(Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spare {
    pub(super) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        let fits = bytes <= BUFFER_BYTES_MAX && self.bytes + bytes <= BYTES_MAX;
        if fits && self.buffers.len() < BUFFERS_MAX {
            buffer.clear();
            self.bytes += bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_its_bytes() {
        let mut spare = Spare::default();
        spare.give(Vec::with_capacity(BUFFER_BYTES_MAX + 1));
        assert_eq!(spare.bytes, 0, "too large to keep");
        for _ in 0..10 {
            spare.give(Vec::with_capacity(1 << 20));
        }
        assert_eq!((spare.buffers.len(), spare.bytes), (4, 4 << 20));
        let last = spare.take();
        assert!(last.is_empty() && last.capacity() == 1 << 20);
        assert_eq!(spare.bytes, 3 << 20);
        for _ in 0..4 {
            spare.take();
        }
        assert_eq!(spare.bytes, 0);
    }
}
