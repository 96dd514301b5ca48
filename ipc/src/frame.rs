//! Frames: a header of five bytes and a MessagePack body.
//!
//! The header holds the body's length (32 bits, big-endian) and the number of file descriptors that travel
//! with the frame. Both are checked before anything is allocated.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::notification::one_line;

/// Bytes of a header.
pub const HEADER_LEN: usize = 5;

/// File descriptors that may travel with one frame.
pub const MAX_FDS: usize = 4;

/// How deep lists and maps may lie in each other in a body. The deepest message has less than ten levels; a
/// decoder that follows a stranger's nesting as far as it goes runs out of stack.
const MAX_DEPTH: usize = 32;

/// Bytes of what is said of a body that cannot be decoded.
const MAX_REASON: usize = 200;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub len: usize,
    /// File descriptors that come with it.
    pub fds: usize,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// It is longer than this socket takes.
    #[error("a frame of {len} bytes is over the limit of {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It announces more file descriptors than a frame may carry.
    #[error("a frame with {0} file descriptors is over the limit of {MAX_FDS}")]
    TooManyFds(usize),
    /// Its body is not the message that is expected here.
    #[error("the message cannot be understood: {0}")]
    Body(String),
}

impl Header {
    /// The header's bytes.
    ///
    /// # Errors
    /// [`FrameError`] if the frame is over the limits.
    pub fn encode(self, max: usize) -> Result<[u8; HEADER_LEN], FrameError> {
        self.check(max)?;
        let len = u32::try_from(self.len).map_err(|_| FrameError::TooLong { len: self.len, max })?;
        let fds = u8::try_from(self.fds).map_err(|_| FrameError::TooManyFds(self.fds))?;
        let [a, b, c, d] = len.to_be_bytes();
        Ok([a, b, c, d, fds])
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`] if the frame is over the limits.
    pub fn decode([a, b, c, d, fds]: [u8; HEADER_LEN], max: usize) -> Result<Self, FrameError> {
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let header = Self { len, fds: usize::from(fds) };
        header.check(max)?;
        Ok(header)
    }

    fn check(self, max: usize) -> Result<(), FrameError> {
        if self.len > max {
            return Err(FrameError::TooLong { len: self.len, max });
        }
        if self.fds > MAX_FDS {
            return Err(FrameError::TooManyFds(self.fds));
        }
        Ok(())
    }
}

/// The body of a frame. Wiped when dropped, because some carry keys.
pub type Body = Zeroizing<Vec<u8>>;

/// Encodes a message.
///
/// # Errors
/// [`FrameError::Body`] if it cannot be encoded.
pub fn encode_body<T: Serialize>(message: &T) -> Result<Body, FrameError> {
    rmp_serde::to_vec_named(message).map(Zeroizing::new).map_err(|error| FrameError::Body(error.to_string()))
}

/// Decodes a message that fills the body to the end.
///
/// # Errors
/// [`FrameError::Body`] if it does not.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let mut rest = body;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    // It repeats names that the sender chose.
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| FrameError::Body(one_line(&error.to_string(), MAX_REASON)))?;
    if !rest.is_empty() {
        return Err(FrameError::Body(format!("{} bytes follow the message", rest.len())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::{keyd, meshd, tund};
    use crate::hello::{Hello, HelloReply, Reply, Request};

    #[test]
    fn limits_are_checked_before_reading() {
        assert_eq!(
            Header::decode([0xff; 5], 1000),
            Err(FrameError::TooLong { len: u32::MAX as usize, max: 1000 })
        );
        assert_eq!(Header::decode([0, 0, 0, 1, 5], 1000), Err(FrameError::TooManyFds(5)));
        assert!(Header { len: 1001, fds: 0 }.encode(1000).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut body = encode_body(&7u32).unwrap();
        body.push(0);
        assert!(decode_body::<u32>(&body).is_err());
    }

    #[test]
    fn an_error_is_a_short_line_whatever_names_the_sender_chose() {
        #[derive(Debug, serde::Deserialize)]
        enum Known {
            One,
        }
        for name in ["a\nb\x1b[2J".to_owned(), "x".repeat(100_000)] {
            let body = encode_body(&name).unwrap();
            let error = decode_body::<Known>(&body).unwrap_err().to_string();
            assert!(error.contains("unknown variant") && error.len() < 300, "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        // A field that nobody knows, with so many lists in each other: {"id": 1, "x": [[…]]}.
        let nested = |levels| {
            let mut body = vec![0x83, 0xa2, b'i', b'd', 1, 0xa1, b'x'];
            body.extend(std::iter::repeat_n(0x91, levels));
            body.extend_from_slice(&[0xc0, 0xa4, b'b', b'o', b'd', b'y', 7]);
            body
        };
        assert!(decode_body::<Request<u8>>(&nested(10)).is_ok());
        let error = decode_body::<Request<u8>>(&nested(2000)).unwrap_err().to_string();
        assert!(error.contains("depth limit"), "{error}");
    }

    proptest! {
        #[test]
        fn headers_read_back(len in 0usize..100_000, fds in 0usize..=MAX_FDS) {
            let header = Header { len, fds };
            prop_assert_eq!(Header::decode(header.encode(100_000).unwrap(), 100_000), Ok(header));
        }

        #[test]
        fn arbitrary_bodies_are_no_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_body::<Hello>(&body);
            let _ = decode_body::<HelloReply>(&body);
            let _ = decode_body::<Request<keyd::Request>>(&body);
            let _ = decode_body::<Reply<keyd::Reply>>(&body);
            let _ = decode_body::<Request<meshd::Request>>(&body);
            let _ = decode_body::<Reply<meshd::Reply>>(&body);
            let _ = decode_body::<Request<tund::Request>>(&body);
            let _ = decode_body::<Reply<tund::Reply>>(&body);
        }
    }
}
