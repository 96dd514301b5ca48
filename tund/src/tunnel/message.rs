//! The fields of WireGuard messages that this side looks at itself (WireGuard, section 5.4).

const HANDSHAKE_INITIATION: u8 = 1;
const HANDSHAKE_RESPONSE: u8 = 2;
const DATA: u8 = 4;

/// Whether it begins a handshake.
pub(super) fn is_initiation(message: &[u8]) -> bool {
    message.first() == Some(&HANDSHAKE_INITIATION)
}

/// Whether it answers a handshake.
pub(super) fn is_response(message: &[u8]) -> bool {
    message.first() == Some(&HANDSHAKE_RESPONSE)
}

/// The index by which the sender of a handshake message wants to be called.
pub(super) fn sender_index(message: &[u8]) -> Option<u32> {
    word(message, 4)
}

/// The receiver index of a data message.
pub(super) fn data_index(message: &[u8]) -> Option<u32> {
    if message.first() == Some(&DATA) { word(message, 4) } else { None }
}

/// The receiver index and the counter of a data message.
pub(super) fn data_counter(message: &[u8]) -> Option<(u32, u64)> {
    let counter = message.get(8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
    Some((data_index(message)?, counter))
}

/// Whether it is a data message whose counter is beyond what a session may use (WireGuard, section 6.1,
/// Reject-After-Messages). boringtun does not check it, and its replay window overflows just before the end.
pub(super) fn is_exhausted(message: &[u8]) -> bool {
    data_counter(message).is_some_and(|(_, counter)| counter >= u64::MAX - (1 << 13))
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(counter: u64) -> Vec<u8> {
        [&[4, 0, 0, 0, 1, 2, 3, 4][..], &counter.to_le_bytes(), &[0; 16]].concat()
    }

    #[test]
    fn the_last_counters_are_refused() {
        assert!(!is_exhausted(&data(0)));
        assert!(!is_exhausted(&data(u64::MAX - 8193)));
        assert!(is_exhausted(&data(u64::MAX - 8192)));
        assert!(is_exhausted(&data(u64::MAX)));
        assert!(!is_exhausted(&data(u64::MAX)[..15]));
    }

    #[test]
    fn only_data_has_a_receiver_index_here() {
        assert_eq!(data_index(&data(0)), Some(0x0403_0201));
        assert_eq!(data_index(&[2, 0, 0, 0, 1, 2, 3, 4]), None);
    }
}
