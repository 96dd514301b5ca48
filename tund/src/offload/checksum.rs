//! The Internet checksum (RFC 1071). Sums are in the byte order of the host, as that document's section 2 allows.

/// The sum with these bytes added, which begin at an even place.
pub(super) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(sum, |sum, word| {
        let (sum, carry) = sum.overflowing_add(u64::from_ne_bytes(*word));
        // The sum of two that carries is less than either.
        sum + u64::from(carry)
    })
}

/// The sum of the pseudo-header of a packet, of whose transport header and payload the length is given (RFC 9293,
/// section 3.1; RFC 8200, section 8.1).
pub(super) fn pseudo_header(packet: &[u8], protocol: u8, len: usize) -> u64 {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let [high, low] = (len as u16).to_be_bytes();
    add(add(0, addresses), &[0, protocol, high, low])
}

/// The sum as its field has it, in which a header's own checksum is completed.
pub(super) fn fold(sum: u64) -> [u8; 2] {
    let mut sum = sum;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_ne_bytes()
}

/// The checksum as its field has it.
pub(super) fn complement(sum: u64) -> [u8; 2] {
    fold(sum).map(|byte| !byte)
}

/// The same of TCP and UDP: never zero, which in UDP means that there is none (RFC 768).
pub(super) fn complement_not_zero(sum: u64) -> [u8; 2] {
    match complement(sum) {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

/// Whether the sum is that of something that contains its checksum.
pub(super) fn is_valid(sum: u64) -> bool {
    fold(sum) == [0xff, 0xff]
}
