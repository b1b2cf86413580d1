//! The file that the faults 'memory' and 'thrash' read: larger than the memory limit leaves room for.

use std::{
    fs::File,
    hint::black_box,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{Advice, fadvise};

use crate::service::mix;

pub const PAGE_BYTES: u64 = 4096;
/// Of linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Of linux/magic.h.
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// What is read at once where all is read.
const CHUNK_BYTES: usize = 256 << 10;

pub struct WorkingSet {
    file: File,
    pages: u64,
    /// The first of them, which each request reads from.
    usual_pages: u64,
}

impl WorkingSet {
    /// Reads the usual bytes, so that they are in memory from the first request on; 0 where requests read nothing.
    pub fn open(path: PathBuf, usual_bytes: u64) -> anyhow::Result<Self> {
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let bytes = file.metadata().with_context(|| format!("stat {}", path.display()))?.len();
        // Without read-ahead, each missing page is waited for: what a working set that does not fit costs.
        fadvise(&file, 0, None, Advice::Random).with_context(|| format!("fadvise {}", path.display()))?;
        let set = Self { file, pages: (bytes / PAGE_BYTES).max(1), usual_pages: usual_bytes.min(bytes) / PAGE_BYTES };
        set.read_through(0, set.usual_pages * PAGE_BYTES).with_context(|| format!("read {}", path.display()))?;
        Ok(set)
    }

    pub fn usual_pages(&self) -> u64 {
        self.usual_pages
    }

    /// Reads what lies behind the usual bytes in large pieces, so that it is in memory as far as there is room: pages that requests
    /// read for the first time would cost them CPU, and the stall is what is to be seen.
    pub fn grow(&self, bytes: u64) -> io::Result<()> {
        let usual_bytes = self.usual_pages * PAGE_BYTES;
        self.read_through(usual_bytes, (usual_bytes + bytes).min(self.pages * PAGE_BYTES))
    }

    /// Twice, as in [`WorkingSet::read`].
    fn read_through(&self, from: u64, to: u64) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        for _ in 0..2 {
            for at in (from..to).step_by(CHUNK_BYTES) {
                self.file.read_at(&mut chunk, at)?;
            }
        }
        Ok(())
    }

    /// Reads `pages` pages that `seed` chooses among the first `among` (of those that there are), twice.
    pub fn read(&self, seed: u64, pages: u64, among: u64) -> io::Result<()> {
        let among = among.clamp(1, self.pages);
        let mut page = [0; PAGE_BYTES as usize];
        // Twice, because only a page that is used again counts as part of the working set: the kernel books the wait
        // for it as a memory stall, and not as plain reading.
        for _ in 0..2 {
            for i in 0..pages {
                let number = mix(mix(seed).wrapping_add(i)) % among;
                self.file.read_exact_at(&mut page, number * PAGE_BYTES)?;
                black_box(&page);
            }
        }
        Ok(())
    }
}

/// A file of `bytes` bytes to be read so, on disk and out of the page cache. It has no name and goes
/// with the last process that has it open. Refuses a file system in memory.
pub fn make_working_set(dir: &Path, bytes: u64) -> anyhow::Result<File> {
    let magic = rustix::fs::statfs(dir).with_context(|| format!("statfs {}", dir.display()))?.f_type as u64;
    if magic == TMPFS_MAGIC || magic == RAMFS_MAGIC {
        bail!("{} is in memory, where reading never waits: choose a directory on a disk with --scratch", dir.display());
    }
    let making = || format!("make the working set in {}", dir.display());
    let mut file = tempfile::tempfile_in(dir).with_context(making)?;
    let mut block = [0u64; 8192];
    for number in 0..bytes.div_ceil(size_of_val(&block) as u64) {
        block.fill(mix(number));
        let raw: Vec<u8> = block.iter().flat_map(|word| word.to_ne_bytes()).collect();
        file.write_all(&raw).with_context(making)?;
    }
    file.sync_all().with_context(making)?;
    // Pages that are cached already would not be charged to those who read them.
    fadvise(&file, 0, None, Advice::DontNeed).with_context(making)?;
    Ok(file)
}
