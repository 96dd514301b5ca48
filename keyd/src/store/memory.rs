//! The files of what is remembered beside the keys.
//!
//! `memory` holds two copies of [`Memory`] in places of a fixed size; the older one is overwritten, so that after a crash
//! at any moment one is whole. `delegations` grows by an entry at a time. Both are opened before `keyd` gives up the right
//! to open files. Only at a start are old entries left out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use i2plan_ipc::daemon::state_dir::StateDirError;
use i2plan_proto::codec::{Codec as _, DecodeError, Reader};
use i2plan_proto::identity::NodeId;
use sha2::{Digest as _, Sha256};
use tracing::{error, warn};

use super::{Store, StoreError};
use crate::memory::{BLOCK, Delegations, Disk, Memory, MemoryChange};

const MEMORY: &str = "memory";
const DELEGATIONS: &str = "delegations";

/// What both files begin with, before the node.
const MAGIC: &[u8; 16] = b"i2plan memory 1\n";

/// Bytes of the first part of a file, which says whose it is.
const HEADER_LEN: usize = MAGIC.len() + 32;

/// Bytes of one copy of the memory on disk, with what is before and after it.
const PLACE_LEN: usize = 4096;

/// Bytes of the file of the memory.
const MEMORY_LEN: usize = 3 * PLACE_LEN;

/// Bytes of the file of delegations at most. A start leaves some four million of them at most, and most of these requests
/// come from `meshd`.
const MAX_DELEGATIONS_LEN: u64 = 64 * 1024 * 1024;

/// The files, open.
#[derive(Debug)]
pub struct MemoryFiles {
    memory: File,
    /// Grows with every copy that is written.
    generation: u64,
    delegations: File,
    /// Bytes of the file of delegations.
    len: u64,
}

/// One copy of the memory, as it is written.
fn copy(generation: u64, content: &[u8]) -> Vec<u8> {
    let mut out = generation.to_be_bytes().to_vec();
    out.extend_from_slice(&u16::try_from(content.len()).expect("it has less than a place").to_be_bytes());
    out.extend_from_slice(content);
    let sum = Sha256::digest(&out);
    out.extend_from_slice(&sum);
    out
}

fn read_copy(place: &[u8]) -> Option<(u64, &[u8])> {
    let mut reader = Reader::new(place);
    let generation = reader.u64("generation").ok()?;
    let len = usize::from(u16::from_be_bytes(reader.array("length").ok()?));
    let content = reader.bytes(len, "memory").ok()?;
    let sum: [u8; 32] = reader.array("checksum").ok()?;
    (Sha256::digest(place.get(..10 + len)?).as_slice() == sum).then_some((generation, content))
}

fn header(node: &NodeId) -> Vec<u8> {
    [MAGIC.as_slice(), &node.0].concat()
}

fn place(generation: u64) -> u64 {
    (1 + generation % 2) * PLACE_LEN as u64
}

impl Disk for MemoryFiles {
    fn save(&mut self, content: &[u8]) -> io::Result<()> {
        let next = self.generation + 1;
        self.memory.write_all_at(&copy(next, content), place(next))?;
        self.memory.sync_data()?;
        self.generation = next;
        Ok(())
    }

    fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        let len = self.len + entry.len() as u64;
        if len > MAX_DELEGATIONS_LEN {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the file {DELEGATIONS} has {MAX_DELEGATIONS_LEN} bytes at most"),
            ));
        }
        let written =
            self.delegations.write_all_at(entry, self.len).and_then(|()| self.delegations.sync_data());
        match written {
            Ok(()) => self.len = len,
            // The next entry must not have a part of this one behind it.
            Err(_) => self.delegations.set_len(self.len)?,
        }
        written
    }
}

impl Store {
    /// Makes the files for the keys of a new node. Those of others are set aside.
    pub(super) fn make_memory(&self, node: &NodeId) -> Result<(), StoreError> {
        for name in [MEMORY, DELEGATIONS] {
            self.set_aside(name)?;
        }
        self.write_memory(node, &Memory::new(), &Delegations::default()).map(|_| ())
    }

    /// What is remembered beside the keys of `node`. What is damaged is set aside, and the memory counts as lost.
    ///
    /// # Errors
    /// [`StoreError`] if the files cannot be used, or are of a later version.
    pub fn open_memory(&self, node: &NodeId) -> Result<(Memory, Delegations, MemoryFiles), StoreError> {
        let mut memory = match self.read_memory(node)? {
            Some(memory) => memory,
            None => {
                error!(
                    "what this node has signed before is not remembered: the memory of keyd is lost or damaged"
                );
                Memory::lost()
            }
        };
        let (delegations, is_whole) = self.read_delegations(node)?.unwrap_or_default();
        memory.remembers &= is_whole;
        // The memory may have been restored from a backup: then these numbers were given out, and others may not hold a
        // later one that would tell.
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(StoreError::Randomness)?;
        memory.reserved = memory.reserved.saturating_add(u64::from(u16::from_be_bytes(random)) % BLOCK);
        let len = self.write_memory(node, &memory, &delegations)?;
        let files = MemoryFiles {
            memory: self.open_file(MEMORY)?,
            generation: 1,
            delegations: self.open_file(DELEGATIONS)?,
            len,
        };
        Ok((memory, delegations, files))
    }

    /// Writes both files anew; the bytes of that of the delegations.
    fn write_memory(
        &self,
        node: &NodeId,
        memory: &Memory,
        delegations: &Delegations,
    ) -> Result<u64, StoreError> {
        let mut content = header(node);
        delegations.compacted().iter().map(MemoryChange::framed).for_each(|entry| content.extend(entry));
        self.directory.replace(DELEGATIONS, &content)?;
        let mut places = header(node);
        places.resize(MEMORY_LEN, 0);
        let first = copy(1, &memory.to_bytes());
        let at = usize::try_from(place(1)).unwrap_or(0);
        places[at..at + first.len()].copy_from_slice(&first);
        self.directory.replace(MEMORY, &places)?;
        Ok(content.len() as u64)
    }

    fn open_file(&self, name: &str) -> Result<File, StoreError> {
        let gone =
            || StateDirError::Io { path: self.directory.path(name), source: io::ErrorKind::NotFound.into() };
        Ok(self.directory.open_file(name)?.ok_or_else(gone)?)
    }

    /// The content of a file that is there, after what says whose it is. One that is another's is set aside.
    fn read_for(&self, name: &str, node: &NodeId) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.directory.read(name, MAX_DELEGATIONS_LEN).map_err(|error| match error {
            // To read a part and write that back would lose the rest.
            StateDirError::TooLarge { path, len, max } => StoreError::TooLarge { path, len, max },
            other => other.into(),
        });
        let Some(mut bytes) = read? else { return Ok(None) };
        if bytes.get(..HEADER_LEN) == Some(header(node).as_slice()) {
            return Ok(Some(bytes.split_off(HEADER_LEN)));
        }
        warn!(file = name, "it is damaged, or of other keys");
        self.set_aside(name)?;
        Ok(None)
    }

    /// Keeps a file under another name, if there is one.
    fn set_aside(&self, name: &str) -> Result<(), StoreError> {
        let aside = format!("{name}.damaged");
        if self.directory.rename(name, &aside)? {
            warn!(file = name, aside, "the file is set aside");
        }
        Ok(())
    }

    fn read_memory(&self, node: &NodeId) -> Result<Option<Memory>, StoreError> {
        let Some(bytes) = self.read_for(MEMORY, node)? else { return Ok(None) };
        let places = [1, 2].map(|number| bytes.get(number * PLACE_LEN - HEADER_LEN..));
        let mut copies: Vec<_> = places.into_iter().flatten().filter_map(read_copy).collect();
        copies.sort_unstable_by_key(|(generation, _)| std::cmp::Reverse(*generation));
        let Some((_, newest)) = copies.first() else {
            self.set_aside(MEMORY)?;
            return Ok(None);
        };
        match Memory::from_bytes(newest) {
            Ok(memory) => Ok(Some(memory)),
            Err(source @ DecodeError::Version { .. }) => {
                Err(StoreError::Memory { path: self.directory.path(MEMORY), source })
            }
            Err(_) => {
                self.set_aside(MEMORY)?;
                Ok(None)
            }
        }
    }

    /// The delegations, and whether all were read.
    fn read_delegations(&self, node: &NodeId) -> Result<Option<(Delegations, bool)>, StoreError> {
        let Some(bytes) = self.read_for(DELEGATIONS, node)? else { return Ok(None) };
        let replayed = Delegations::replay(&bytes);
        if replayed.is_damaged {
            error!(bytes = replayed.whole, "the file of delegations is damaged behind these bytes");
            self.set_aside(DELEGATIONS)?;
        }
        Ok(Some((replayed.delegations, !replayed.is_damaged)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use i2plan_testing as testing;

    use super::*;

    struct Directory {
        _dir: tempfile::TempDir,
        store: Store,
    }

    fn directory() -> Directory {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("keyd")).unwrap();
        Directory { _dir: dir, store }
    }

    fn node() -> NodeId {
        testing::node(1)
    }

    fn entry(subject: u8) -> MemoryChange {
        MemoryChange::Delegated(testing::chain(0).id(), testing::delegation(0, subject))
    }

    /// A memory and two delegations, on disk.
    fn written(store: &Store) -> Memory {
        store.make_memory(&node()).unwrap();
        let (memory, _, mut files) = store.open_memory(&node()).unwrap();
        let memory = Memory { reserved: 5000, ..memory };
        files.save(&memory.to_bytes()).unwrap();
        files.append(&entry(1).framed()).unwrap();
        files.append(&entry(2).framed()).unwrap();
        memory
    }

    #[test]
    fn what_was_saved_is_there_after_a_start() {
        let Directory { store, .. } = &directory();
        let before = written(store);
        let (memory, delegations, _) = store.open_memory(&node()).unwrap();
        assert!(memory.remembers);
        // Numbers are left out, never given out twice.
        assert!((before.reserved..before.reserved + BLOCK).contains(&memory.reserved));
        assert_eq!(delegations.len(), 2);
    }

    #[test]
    fn memory_that_is_gone_counts_as_lost() {
        for name in [MEMORY, DELEGATIONS] {
            let Directory { store, .. } = &directory();
            written(store);
            std::fs::remove_file(store.directory.path(name)).unwrap();
            let (memory, _, _) = store.open_memory(&node()).unwrap();
            assert!(!memory.remembers, "{name}");
            let (memory, _, _) = store.open_memory(&node()).unwrap();
            assert!(!memory.remembers, "{name}: after another start");
        }
    }

    #[test]
    fn memory_of_other_keys_is_set_aside() {
        let Directory { store, .. } = &directory();
        written(store);
        let (memory, delegations, _) = store.open_memory(&testing::node(2)).unwrap();
        assert!(!memory.remembers && delegations.is_empty() && memory.reserved < BLOCK);
        assert!(
            store.directory.path("memory.damaged").exists()
                && store.directory.path("delegations.damaged").exists()
        );
    }

    #[test]
    fn damage_anywhere_in_the_newest_copy_leaves_the_one_before() {
        let Directory { store, .. } = &directory();
        written(store);
        let path = store.directory.path(MEMORY);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(place(2)).unwrap() + 12] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (memory, ..) = store.open_memory(&node()).unwrap();
        assert!(memory.remembers && memory.reserved < 2 * BLOCK);
    }

    #[test]
    fn damaged_delegations_are_kept_and_told() {
        let Directory { store, .. } = &directory();
        written(store);
        let path = store.directory.path(DELEGATIONS);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = HEADER_LEN + entry(1).framed().len() + 20;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (memory, delegations, _) = store.open_memory(&node()).unwrap();
        assert_eq!((memory.remembers, delegations.len()), (false, 1));
        assert_eq!(std::fs::read(store.directory.path("delegations.damaged")).unwrap(), bytes);
    }

    #[test]
    fn the_file_of_delegations_has_a_bound_that_a_start_leaves_room_to() {
        let Directory { store, .. } = &directory();
        written(store);
        let (_, _, mut files) = store.open_memory(&node()).unwrap();
        let entry = entry(3).framed();
        files.len = MAX_DELEGATIONS_LEN - entry.len() as u64 + 1;
        assert_eq!(files.append(&entry).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        files.len -= 1;
        files.append(&entry).unwrap();
        assert!(files.append(&MemoryChange::Cleared.framed()).is_err());
        // As large as it may be, it is read, and what does not matter is left out.
        let path = store.directory.path(DELEGATIONS);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(HEADER_LEN as u64).unwrap();
        file.set_len(MAX_DELEGATIONS_LEN).unwrap();
        let (memory, _, mut files) = store.open_memory(&node()).unwrap();
        assert!(memory.remembers && files.len < 4096);
        files.append(&entry).unwrap();
    }

    #[test]
    fn a_file_that_is_too_large_is_an_error_and_stays_as_it_is() {
        for name in [MEMORY, DELEGATIONS] {
            let Directory { store, .. } = &directory();
            written(store);
            let path = store.directory.path(name);
            let before = [MEMORY, DELEGATIONS].map(|name| std::fs::read(store.directory.path(name)).unwrap());
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(MAX_DELEGATIONS_LEN + 1).unwrap();
            let error = store.open_memory(&node()).unwrap_err();
            assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
            assert_eq!(file.metadata().unwrap().len(), MAX_DELEGATIONS_LEN + 1);
            file.set_len(len).unwrap();
            let after = [MEMORY, DELEGATIONS].map(|name| std::fs::read(store.directory.path(name)).unwrap());
            assert_eq!(after, before);
            assert_eq!(store.open_memory(&node()).unwrap().1.len(), 2);
        }
    }

    #[test]
    fn an_entry_that_a_crash_cut_short_is_as_if_it_had_not_been_written() {
        let Directory { store, .. } = &directory();
        written(store);
        let path = store.directory.path(DELEGATIONS);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let (memory, delegations, mut files) = store.open_memory(&node()).unwrap();
        assert_eq!((memory.remembers, delegations.len()), (true, 1));
        files.append(&entry(3).framed()).unwrap();
        assert_eq!(store.open_memory(&node()).unwrap().1.len(), 2);
    }
}
