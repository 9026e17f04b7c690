//! Hash slots, computed apart from the engine: a test must not take its answer from what it tests.

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % 16384
}

/// What stands between the first `{` and the next `}`, unless that is nothing.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let after = &key[open + 1..];
    match after.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &after[..close],
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

/// For how long moves of slots held their clients, milliseconds, as a member's log tells.
pub fn held_ms(log: &str) -> impl Iterator<Item = f64> {
    let moves = log.lines().filter(|line| line.contains("the slots' clients were held"));
    let held = moves.filter_map(|line| line.split_once("held_us=")?.1.split(' ').next());
    held.filter_map(|us| us.trim().parse().ok()).map(|us: f64| us / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::{held_ms, slot_of};

    #[test]
    fn what_a_log_tells_of_moves_is_read() {
        let log = "INFO engine::moves::source: the slots' clients were held id=7 held_us=6250 laps_us=\"held=9\"\nINFO engine::hold: all clients were held held_us=7 laps_us=\"still=7\"\n";
        assert_eq!(held_ms(log).collect::<Vec<_>>(), [6.25]);
    }

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(super::crc16(b"123456789"), 0x31c3);
        for (key, slot) in
            [("foo", 12182), ("bar", 5061), ("hello", 866), ("{user1000}.following", 3443)]
        {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"{user1000}.followers"), slot_of(b"user1000"));
        assert_ne!(slot_of(b"a{}{b}"), slot_of(b"b"));
    }
}
