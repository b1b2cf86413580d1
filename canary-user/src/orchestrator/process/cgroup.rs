//! One cgroup2 directory, held open: what is read and written goes to the cgroup that was opened, never to one that
//! took its path later.

use std::{fs::File, io::Read, os::fd::OwnedFd, path::Path};

use anyhow::Context;
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, fstat, open, openat},
    io::Errno,
};

pub struct CgroupDir {
    fd: OwnedFd,
    path: String,
    incarnation: u64,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl CgroupDir {
    /// `None` where the cgroup does not exist.
    pub fn open(root: &Path, cgroup: &str) -> anyhow::Result<Option<Self>> {
        let full = root.join(cgroup.trim_start_matches('/'));
        match open(&full, DIRECTORY, Mode::empty()) {
            Ok(fd) => Self::new(fd, cgroup.to_owned()).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open cgroup {}", full.display())),
        }
    }

    fn new(fd: OwnedFd, path: String) -> anyhow::Result<Self> {
        // The inode number of a cgroup's directory is the kernel's cgroup id (64-bit kernels).
        let incarnation = fstat(&fd).with_context(|| format!("stat cgroup {path}"))?.st_ino;
        Ok(Self { fd, path, incarnation })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether a process lives in this cgroup or below. One that was removed has none.
    pub fn is_populated(&self) -> anyhow::Result<bool> {
        let Some(events) = self.read("cgroup.events")? else { return Ok(false) };
        let value = events.lines().find_map(|line| line.strip_prefix("populated "));
        Ok(value.with_context(|| format!("cgroup {}: cgroup.events has no 'populated'", self.path))? != "0")
    }

    /// Processes in this cgroup, without descendants.
    pub fn own_pids(&self) -> anyhow::Result<Vec<i32>> {
        let text = self.read("cgroup.procs")?.unwrap_or_default();
        text.lines()
            .map(|line| line.parse().with_context(|| format!("cgroup {}: '{line}' in cgroup.procs", self.path)))
            .collect()
    }

    /// Processes in this cgroup and below.
    pub fn pids(&self) -> anyhow::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for group in self.subtree()? {
            pids.extend(group.own_pids()?);
        }
        Ok(pids)
    }

    /// This cgroup and all its descendants, parents first.
    pub fn subtree(&self) -> anyhow::Result<Vec<CgroupDir>> {
        let mut all = vec![Self::new(self.fd.try_clone()?, self.path.clone())?];
        let mut next = 0;
        while next < all.len() {
            let children = all[next].children()?;
            all.extend(children);
            next += 1;
        }
        Ok(all)
    }

    fn children(&self) -> anyhow::Result<Vec<CgroupDir>> {
        let reading = || format!("list cgroup {}", self.path);
        let mut children = Vec::new();
        for entry in Dir::read_from(&self.fd).with_context(reading)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(e) => return Err(e).with_context(reading),
            };
            let name = entry.file_name();
            if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
                continue;
            }
            match openat(&self.fd, name, DIRECTORY, Mode::empty()) {
                Ok(fd) => children.push(Self::new(fd, format!("{}/{}", self.path, name.to_string_lossy()))?),
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("open cgroup {}/{}", self.path, name.to_string_lossy()));
                }
            }
        }
        Ok(children)
    }

    /// SIGKILL to all processes in this cgroup and below at once, forks included.
    pub fn kill(&self) -> anyhow::Result<()> {
        let writing = || format!("write cgroup.kill of {}", self.path);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&self.fd, "cgroup.kill", flags, Mode::empty()).and_then(|file| rustix::io::write(&file, b"1")) {
            // Removed since: nothing runs there.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(e) => Err(e).with_context(writing),
        }
    }

    /// `None` once the cgroup was removed.
    fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let reading = || format!("read {name} of cgroup {}", self.path);
        let file = match openat(&self.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
            Err(e) => return Err(e).with_context(reading),
        };
        let mut text = String::new();
        match File::from(file).read_to_string(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
            Err(e) => Err(e).with_context(reading),
        }
    }
}
