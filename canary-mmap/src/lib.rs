//! The memory of a BPF array map that was made with `BPF_F_MMAPABLE`, mapped for reading: a look-up without a system call. And
//! memory that is given back to the system.
//!
//! A crate of its own because both are `unsafe`, which the daemon is kept free of.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// Gives what was freed back to the system, which glibc else keeps for what may be asked for next. For after a piece of work that
/// took far more than what follows.
pub fn give_back_freed() {
    // SAFETY: touches nothing but free blocks of the allocator, under its own locks (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Words of 64 bits that someone else writes while they are read.
#[derive(Debug)]
pub struct Words {
    /// Where the mapping begins: at a page.
    mapping: *const AtomicU64,
    /// Words of the mapping before the first that was asked for.
    before: usize,
    words: usize,
}

// SAFETY: the memory belongs to no thread, and is only ever read, atomically.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `words` words of what `fd` refers to, from the word `first` on.
    ///
    /// # Errors
    /// Those of mmap(2): `EINVAL` or `EPERM` where the map was not made to be mapped, or is smaller. Zero words are refused.
    pub fn map(fd: BorrowedFd, first: usize, words: usize) -> io::Result<Self> {
        const WORD: usize = size_of::<u64>();
        if words == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let before = first % (page_size() / WORD);
        let end = first.checked_add(words).and_then(|end| end.checked_mul(WORD)).ok_or(io::ErrorKind::InvalidInput)?;
        let start = (first - before) * WORD;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing of ours is replaced.
        let mapping =
            unsafe { mmap(std::ptr::null_mut(), end - start, ProtFlags::READ, MapFlags::SHARED, fd, start as u64) }?;
        Ok(Self { mapping: mapping.cast_const().cast(), before, words })
    }

    /// How many words are mapped.
    pub fn len(&self) -> usize {
        self.words
    }

    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// One word as it is now; `None` beyond what is mapped.
    #[inline]
    pub fn load(&self, index: usize) -> Option<u64> {
        if index >= self.words {
            return None;
        }
        // SAFETY: inside of the mapping, which is of `before + words` words, lives as long as `self`, begins at a page, and is
        // never shrunk: the size of a map is fixed. Written by others, hence atomic.
        Some(unsafe { &*self.mapping.add(self.before + index) }.load(Ordering::Relaxed))
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this size; no reference into it outlives a call of `load`.
        let _ = unsafe { munmap(self.mapping.cast_mut().cast(), (self.before + self.words) * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn reads_what_is_written_and_nothing_beyond() {
        // Any file can be mapped; the end-to-end tests read real maps.
        let path = std::env::temp_dir().join(format!("canary-mmap-{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("file");
        std::fs::remove_file(&path).expect("remove");
        let page = page_size() / size_of::<u64>();
        let all: Vec<u8> = (0..2 * page as u64 + 5).flat_map(u64::to_ne_bytes).collect();
        file.write_all(&all).expect("write");
        // From the start, inside of a page, at the start of one, over its end.
        for first in [0, 3, page, 2 * page - 1] {
            let words = Words::map(file.as_fd(), first, 2).expect("map");
            let want = first as u64;
            assert_eq!((words.load(0), words.load(1), words.load(2)), (Some(want), Some(want + 1), None));
        }
        assert!(Words::map(file.as_fd(), 0, 0).is_err() && Words::map(file.as_fd(), 1, 0).is_err());
        assert!(Words::map(file.as_fd(), usize::MAX, 1).is_err());
    }
}
