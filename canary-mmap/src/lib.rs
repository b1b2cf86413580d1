//! The memory of a BPF array map that was made with `BPF_F_MMAPABLE`, mapped for reading: a look-up without a system call. And
//! memory that is given back to the system.
//!
//! A crate of its own because both are `unsafe`, which the daemon is kept free of.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

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
    start: *const AtomicU64,
    words: usize,
}

// SAFETY: the memory belongs to no thread, and is only ever read, atomically.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the first `words` words of what `fd` refers to.
    ///
    /// # Errors
    /// Those of mmap(2): `EINVAL` or `EPERM` where the map was not made to be mapped, or is smaller. Zero words are refused.
    pub fn map(fd: BorrowedFd, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(size_of::<u64>()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing of ours is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, fd, 0) }?;
        Ok(Self { start: start.cast_const().cast(), words })
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
        // SAFETY: inside of the mapping, which lives as long as `self`, begins at a page, and is never shrunk: the size of
        // a map is fixed. Written by others, hence atomic.
        Some(unsafe { &*self.start.add(index) }.load(Ordering::Relaxed))
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this size; no reference into it outlives a call of `load`.
        let _ = unsafe { munmap(self.start.cast_mut().cast(), self.words * size_of::<u64>()) };
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
        file.write_all(&[7u64.to_ne_bytes(), 8u64.to_ne_bytes()].concat()).expect("write");
        let words = Words::map(file.as_fd(), 2).expect("map");
        assert_eq!((words.load(0), words.load(1), words.load(2)), (Some(7), Some(8), None));
        assert!(Words::map(file.as_fd(), 0).is_err());
    }
}
