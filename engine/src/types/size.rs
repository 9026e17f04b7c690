//! What an allocation really takes: the size classes of the allocator.

/// The bytes that the allocator (jemalloc's classes, quantum 16) sets aside for a request; nothing for an empty one.
pub const fn size_class(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    if bytes <= 8 {
        return 8;
    }
    if bytes <= 128 {
        return (bytes + 15) & !15;
    }
    // Four classes in each doubling.
    let step = 1 << (usize::BITS - 1 - (bytes - 1).leading_zeros() - 2);
    (bytes + step - 1) & !(step - 1)
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn requests_are_rounded_to_the_next_class() {
        for (request, class) in [
            (0, 0),
            (1, 8),
            (9, 16),
            (16, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (8193, 10240),
            (1 << 20, 1 << 20),
        ] {
            assert_eq!(size_class(request), class, "{request}");
        }
    }
}
