//! A file in which the kernel tells something, read again and again.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::targets::cgroup::is_gone;

/// One such file that was there when it was looked for.
#[derive(Debug)]
pub struct KernelFile {
    /// Where it stays open: opening takes longer than reading.
    file: Option<File>,
    path: PathBuf,
}

impl KernelFile {
    /// `None` where there is no such file. With `held` it stays open; otherwise each reading opens it.
    pub fn open(dir: &Path, name: &str, held: bool) -> Option<Self> {
        let path = dir.join(name);
        let file = File::open(&path).ok()?;
        Some(Self { file: held.then_some(file), path })
    }

    pub fn held(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// `None` where it says nothing: the kernel has it switched off, or there is no room to open it.
    ///
    /// # Errors
    /// When what it tells of is gone (see [`is_gone`]).
    pub fn read(&self) -> io::Result<Option<String>> {
        match &self.file {
            Some(file) => read(file),
            None => match File::open(&self.path) {
                Ok(file) => read(&file),
                Err(error) if is_gone(&error) => Err(error),
                Err(_) => Ok(None),
            },
        }
    }
}

/// As [`KernelFile::read`], of an open file.
pub fn read(file: &File) -> io::Result<Option<String>> {
    // Most are far shorter; clearing a buffer for the longest takes as long as such a read.
    let mut short = [0u8; 512];
    match file.read_at(&mut short, 0) {
        Ok(n) if n < short.len() => return Ok(std::str::from_utf8(&short[..n]).ok().map(str::to_owned)),
        Ok(_) => {}
        Err(e) if is_gone(&e) => return Err(e),
        // EOPNOTSUPP where PSI is compiled in but off.
        Err(_) => return Ok(None),
    }
    let mut buffer = [0u8; 16384];
    match file.read_at(&mut buffer, 0) {
        // Cut short it would say less than there is.
        Ok(n) if n == buffer.len() => Ok(None),
        Ok(n) => Ok(String::from_utf8(buffer[..n].to_vec()).ok()),
        Err(e) if is_gone(&e) => Err(e),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_or_not_it_says_the_same() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        assert!(KernelFile::open(dir, "absent", false).is_none());
        let long = "x".repeat(600);
        for text in ["short", &long] {
            std::fs::write(dir.join("file"), text).expect("written");
            for held in [true, false] {
                let file = KernelFile::open(dir, "file", held).expect("there");
                assert_eq!(file.held().is_some(), held);
                assert_eq!(file.read().expect("there").as_deref(), Some(text));
            }
        }
        let file = KernelFile::open(dir, "file", false).expect("there");
        std::fs::remove_file(dir.join("file")).expect("removed");
        assert!(is_gone(&file.read().expect_err("gone")));
    }
}
