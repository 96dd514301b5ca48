//! The binary encoding of everything that is signed or sent.
//!
//! Integers are big-endian, arrays have a fixed length, variable parts carry their length in front. There is
//! exactly one encoding of a value and [`Codec::from_bytes`] accepts no other: decoding checks every field
//! and refuses trailing bytes.

use thiserror::Error;

/// Why bytes are not the encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ended before the value did.
    #[error("{what} is truncated")]
    Truncated {
        /// The field that was being read.
        what: &'static str,
    },
    /// Bytes follow the value.
    #[error("{extra} bytes follow the end of the value")]
    Trailing {
        /// How many bytes were left over.
        extra: usize,
    },
    /// A field holds what it may not hold.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The value was made by a version of i2plan that this one does not know.
    #[error("{what} has version {version}, which this version of i2plan does not know")]
    Version {
        /// The structure.
        what: &'static str,
        /// The version that it carries.
        version: u8,
    },
}

/// Reads fields off the front of a byte slice.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if none is left.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(u8::from_be_bytes)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// A count byte of at most `max`, then that many values.
    ///
    /// # Errors
    /// If the count is over `max` or a value does not decode.
    pub fn list<T: Codec>(&mut self, max: usize, what: &'static str) -> Result<Vec<T>, DecodeError> {
        let count = usize::from(self.u8(what)?);
        if count > max {
            return Err(DecodeError::Invalid { what, why: "too many entries" });
        }
        // Grown by what really decodes: the count alone, which a stranger chose, allocates nothing.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(T::decode(self)?);
        }
        Ok(values)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }
}

/// Appends a list as a count byte and its values; the counterpart of [`Reader::list`].
///
/// # Panics
/// If there are more than 255 values; every list type bounds itself far below.
pub fn put_list<T: Codec>(out: &mut Vec<u8>, values: &[T]) {
    out.push(u8::try_from(values.len()).expect("lists are bounded where they are built"));
    for value in values {
        value.encode(out);
    }
}

/// A type with one binary encoding.
pub trait Codec: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value.
    ///
    /// # Errors
    /// If the bytes are not the encoding of a value.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The encoding.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Decodes a value that fills `bytes` to the end.
    ///
    /// # Errors
    /// If `bytes` are not exactly the encoding of a value.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Lets a [`Codec`] type travel in serde formats as one byte string, so that what crosses IPC is parsed by
/// the same strict code as what crosses the network.
macro_rules! serde_as_bytes {
    ($($type:ty),+ $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&$crate::codec::Codec::to_bytes(self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::codec::deserialize_bytes(deserializer)
            }
        }
    )+};
}
pub(crate) use serde_as_bytes;

/// Has a type serialized as its text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// Deserializes a byte string and decodes it.
pub(crate) fn deserialize_bytes<'de, T: Codec, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Visitor<T>(std::marker::PhantomData<T>);

    impl<T: Codec> serde::de::Visitor<'_> for Visitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a byte string")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<T, E> {
            T::from_bytes(bytes).map_err(E::custom)
        }
    }

    deserializer.deserialize_bytes(Visitor(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_input_names_the_field() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!(reader.u32("expiry"), Err(DecodeError::Truncated { what: "expiry" }));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u8("version"), Ok(1));
        assert_eq!(reader.finish(), Err(DecodeError::Trailing { extra: 2 }));
    }
}
