//! What comes on the socket of `i2planctl ping`: any program of the machine and any member can send it.

use std::net::IpAddr;

use i2planctl::ping::echo::{PAYLOAD, Token, reply, request};

use crate::{Seeds, seed};

const TOKEN: Token = Token(*b"a token!");

fn target(ipv4: bool) -> IpAddr {
    if ipv4 { [192, 0, 2, 1].into() } else { [0xfd12, 0, 0, 0, 0, 0, 0, 1].into() }
}

/// Runs the target: a byte that says of which kind the socket is, and what comes on it.
pub fn run(input: &[u8]) {
    let Some((kind, packet)) = input.split_first() else { return };
    let (ipv4, raw) = (kind & 1 != 0, kind & 2 != 0);
    if let Some(sequence) = reply(packet, target(ipv4), TOKEN, raw) {
        // What counts is what a host makes of the request with this number.
        let request = request(target(ipv4), TOKEN, sequence);
        let icmp = &packet[packet.len() - request.len()..];
        assert_eq!(icmp[0], if ipv4 { 0 } else { 129 });
        assert_eq!(icmp[6..8], request[6..8]);
        assert!(icmp.len() == 8 + PAYLOAD && icmp[8..].starts_with(&TOKEN.0));
        assert!(raw && ipv4 || icmp.len() == packet.len());
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let answer = |ipv4: bool| {
        let mut packet = request(target(ipv4), TOKEN, 513);
        packet[0] = if ipv4 { 0 } else { 129 };
        packet
    };
    vec![
        seed("ipv4", [&[1][..], &answer(true)].concat()),
        seed("ipv4-raw", [&[3][..], &[0x45; 20], &answer(true)].concat()),
        seed("ipv6", [&[0][..], &answer(false)].concat()),
        seed("own-request", [&[2][..], &request(target(false), TOKEN, 1)].concat()),
    ]
}
