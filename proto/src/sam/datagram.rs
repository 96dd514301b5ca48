//! Datagrams between an application and a SAM bridge.

use crate::destination::{Destination, base64};
use crate::endpoint::AnyDestination;
use thiserror::Error;

/// Longest header line of a received datagram, bytes: a destination in base64 and the ports, with room.
const MAX_HEADER: usize = 2048;

/// A datagram to a destination, as the bridge takes it.
#[must_use]
pub fn encode(session: &str, destination: &Destination, payload: &[u8]) -> Vec<u8> {
    encode_to(session, &destination.to_base64(), payload)
}

/// The same to a destination in I2P's base64: the one form that every bridge takes, as emissary and older i2pd take no
/// `.b32.i2p` name there.
#[must_use]
pub fn encode_to(session: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut datagram = format!("3.0 {session} {destination}\n").into_bytes();
    datagram.extend_from_slice(payload);
    datagram
}

/// A repliable datagram with its line, as the bridge takes it on the connection of a session, to a destination in I2P's
/// base64.
#[must_use]
pub fn encode_on_connection(destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut datagram =
        format!("DATAGRAM SEND DESTINATION={destination} SIZE={}\n", payload.len()).into_bytes();
    datagram.extend_from_slice(payload);
    datagram
}

/// A repliable datagram, as the bridge forwards it. The router has checked that the sender owns the
/// destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received<'a, D = Destination> {
    /// The sender's destination.
    pub from: D,
    /// What it sent.
    pub payload: &'a [u8],
}

/// A datagram from something else than an i2plan node, or not from the bridge at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a forwarded datagram does not start with the destination of an i2plan node")]
pub struct DatagramError;

/// Reads a forwarded repliable datagram of an i2plan node.
///
/// # Errors
/// [`DatagramError`] if its header is not such a destination in base64, with or without options.
pub fn decode(datagram: &[u8]) -> Result<Received<'_>, DatagramError> {
    let (sender, payload) = split(datagram)?;
    let from = Destination::from_i2p(&sender).map_err(|_| DatagramError)?;
    Ok(Received { from, payload })
}

/// Reads a forwarded repliable datagram of any sender.
///
/// # Errors
/// [`DatagramError`] if its header is not a destination in base64, with or without options.
pub fn decode_any(datagram: &[u8]) -> Result<Received<'_, AnyDestination>, DatagramError> {
    let (sender, payload) = split(datagram)?;
    let from = AnyDestination::from_i2p(&sender).map_err(|_| DatagramError)?;
    Ok(Received { from, payload })
}

/// The sender in the header, and the payload.
fn split(datagram: &[u8]) -> Result<(Vec<u8>, &[u8]), DatagramError> {
    let head = &datagram[..datagram.len().min(MAX_HEADER)];
    let end = head.iter().position(|byte| *byte == b'\n').ok_or(DatagramError)?;
    let sender = datagram[..end].split(|byte| *byte == b' ').next().unwrap_or_default();
    let sender = base64().decode(sender).map_err(|_| DatagramError)?;
    Ok((sender, &datagram[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn destination() -> Destination {
        Destination { padding: [3; 32], signing_key: [4; 32] }
    }

    #[test]
    fn headers_are_as_specified() {
        let datagram = encode("s-1", &destination(), b"payload\nwith a line");
        let expected = format!("3.0 s-1 {}\npayload\nwith a line", destination().to_base64());
        assert_eq!(datagram, expected.as_bytes());
    }

    #[test]
    fn both_forms_of_a_header_are_read() {
        for options in ["", " FROM_PORT=0 TO_PORT=0"] {
            let datagram = format!("{}{options}\nab\ncd", destination().to_base64());
            let received = decode(datagram.as_bytes()).unwrap();
            assert_eq!(received, Received { from: destination(), payload: b"ab\ncd" });
        }
    }

    #[test]
    fn a_sender_of_any_make_is_read() {
        // DSA and a null certificate, as i2pd makes by default.
        let bytes = [&[7; 384][..], &[0, 0, 0]].concat();
        let datagram = [base64().encode(&bytes).as_bytes(), b"\nab"].concat();
        let from = AnyDestination::from_i2p(&bytes).unwrap();
        assert_eq!(decode_any(&datagram), Ok(Received { from, payload: &b"ab"[..] }));
        assert_eq!(decode(&datagram), Err(DatagramError));
    }

    #[test]
    fn other_headers_are_refused() {
        assert!(decode(b"").is_err());
        assert!(decode(b"AAAA\npayload").is_err());
        assert!(decode(destination().to_base64().as_bytes()).is_err());
        assert!(decode(&[b'A'; 5000]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = (decode(&bytes), decode_any(&bytes));
        }
    }
}
