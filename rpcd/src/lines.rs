//! Where a document ends in a stream: at the end of its line. Empty lines are nothing.

use zeroize::{Zeroize as _, Zeroizing};

use super::message::{Json, MAX_DOCUMENT};

/// What has come and is not answered yet.
#[derive(Debug)]
pub struct Lines {
    /// Of one size for good, so that no copy of a secret stays behind.
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes of the buffer that were given out.
    taken: usize,
    /// Bytes after these that are known to hold no end of a line.
    searched: usize,
}

/// What stands next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A document.
    Document(Json),
    /// More is needed.
    Partial,
    /// A line longer than a document may be. Where the next one begins is not looked for.
    TooLong,
}

impl Default for Lines {
    fn default() -> Self {
        Self { buffer: Zeroizing::new(Vec::with_capacity(CAPACITY)), taken: 0, searched: 0 }
    }
}

/// The longest document, and the end of its line as it may be.
const CAPACITY: usize = MAX_DOCUMENT + 2;

impl Lines {
    /// How many bytes it can take in now: some, as long as the next is not [`Next::TooLong`].
    #[must_use]
    pub fn room(&self) -> usize {
        CAPACITY - (self.buffer.len() - self.taken)
    }

    /// Takes in what has come, at most as much as there is [`Self::room`] for.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        let count = bytes.len().min(CAPACITY - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
    }

    /// What stands next.
    pub fn take(&mut self) -> Next {
        loop {
            let waiting = &self.buffer[self.taken..];
            let Some(end) = waiting[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = waiting.len();
                return if waiting.len() == CAPACITY { Next::TooLong } else { Next::Partial };
            };
            let document = trimmed(&waiting[..self.searched + end]);
            self.taken += self.searched + end + 1;
            self.searched = 0;
            if document.len() > MAX_DOCUMENT {
                return Next::TooLong;
            }
            if !document.is_empty() {
                return Next::Document(document);
            }
        }
    }

    /// Whether a line has begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.taken < self.buffer.len()
    }

    /// What is left at the end of the stream, which ends the last line too.
    #[must_use]
    pub fn finish(self) -> Option<Json> {
        let document = trimmed(&self.buffer[self.taken..]);
        (!document.is_empty()).then_some(document)
    }

    fn make_room(&mut self) {
        let left = self.buffer.len() - self.taken;
        self.buffer.copy_within(self.taken.., 0);
        self.buffer[left..].zeroize();
        self.buffer.truncate(left);
        self.taken = 0;
    }
}

/// Without the white space of JSON around it.
fn trimmed(line: &[u8]) -> Json {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let start = line.iter().take_while(|byte| space(byte)).count();
    let end = line[start..].iter().rev().take_while(|byte| space(byte)).count();
    Zeroizing::new(line[start..line.len() - end].to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out of these pieces.
    fn read(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() {
                let count = piece.len().min(lines.room());
                assert!(count > 0, "it would wait for ever");
                lines.push(&piece[..count]);
                piece = &piece[count..];
                loop {
                    match lines.take() {
                        Next::Document(document) => found.push(document.to_vec()),
                        Next::Partial => break,
                        Next::TooLong => return (found, true),
                    }
                }
            }
        }
        found.extend(lines.finish().map(|document| document.to_vec()));
        (found, false)
    }

    #[test]
    fn the_longest_document_fits_and_a_longer_one_does_not() {
        let longest = vec![b'x'; MAX_DOCUMENT];
        for end in [&b"\n"[..], b"\r\n", b""] {
            assert_eq!(read(&[&longest, end]), (vec![longest.clone()], false));
        }
        assert!(read(&[&longest, b"x\n"]).1);
        assert!(read(&[&longest, b"xxxx"]).1);
    }

    proptest! {
        /// However the stream is cut into pieces, the same documents come out of it.
        #[test]
        fn pieces_do_not_matter(
            documents in prop::collection::vec("[ a\\r]{0,20}", 0..10),
            cuts in prop::collection::vec(1usize..30, 1..20),
        ) {
            let stream = documents.join("\n").into_bytes();
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let expected: Vec<Vec<u8>> = documents
                .iter()
                .map(|document| document.trim().as_bytes().to_vec())
                .filter(|document| !document.is_empty())
                .collect();
            prop_assert_eq!(read(&pieces), (expected, false));
        }
    }
}
