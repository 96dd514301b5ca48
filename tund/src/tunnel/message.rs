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

/// Longest line before a message that the bridge forwards, bytes: a destination in base64 and the ports, with room.
pub(crate) const MAX_FORWARDED_LINE: usize = 2048;

/// The destination in base64 that has signed it, if any has, and the message of what the bridge has forwarded. A bridge
/// forwards in the style of the session; each message shows which that is, because it begins with its type and three
/// zeros, and base64 does not.
pub(super) fn split_forwarded(datagram: &[u8]) -> (Option<&[u8]>, &[u8]) {
    if matches!(datagram, [1..=4, 0, 0, 0, ..]) {
        return (None, datagram);
    }
    let head = &datagram[..datagram.len().min(MAX_FORWARDED_LINE)];
    match head.iter().position(|byte| *byte == b'\n') {
        Some(end) => (datagram[..end].split(|byte| *byte == b' ').next(), &datagram[end + 1..]),
        None => (None, datagram),
    }
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
    fn both_styles_are_split() {
        let message = data(0);
        assert_eq!(split_forwarded(&message), (None, &message[..]));
        for line in ["AbC=", "AbC= FROM_PORT=1 TO_PORT=2"] {
            let forwarded = [line.as_bytes(), b"\n", &message].concat();
            assert_eq!(split_forwarded(&forwarded), (Some(&b"AbC="[..]), &message[..]));
        }
        for other in [&b""[..], b"AbC=", &[b'A'; 5000]] {
            assert_eq!(split_forwarded(other), (None, other));
        }
    }

    #[test]
    fn only_data_has_a_receiver_index_here() {
        assert_eq!(data_index(&data(0)), Some(0x0403_0201));
        assert_eq!(data_index(&[2, 0, 0, 0, 1, 2, 3, 4]), None);
    }
}
