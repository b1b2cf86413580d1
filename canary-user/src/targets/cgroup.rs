//! Where cgroup2 is mounted, and which cgroups are there.

use std::{
    cmp::Reverse,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The cgroup2 tree as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    /// Where below the real root the mounted directory is: "" unless a subtree is mounted.
    above: String,
}

impl Root {
    /// Finds cgroup2 in `/proc/self/mountinfo`, wherever it is mounted.
    ///
    /// On a hybrid machine `/sys/fs/cgroup` is a tmpfs in which directories can be made but mean nothing, so the file
    /// system's magic number is checked too.
    pub fn find() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let Some((path, root)) = parse_mountinfo(&text) else {
            bail!("no cgroup2 file system is mounted: mount one, or boot with systemd.unified_cgroup_hierarchy=1");
        };
        // The real root alone has no type. In a cgroup namespace it is mounted as "/../..", which is no path below it.
        let is_real = fs::metadata(path.join("cgroup.type")).is_err();
        Self::at(&path, &if is_real { String::new() } else { below(&root) })
    }

    /// Takes a directory for the root, after checking that it is cgroup2.
    pub fn at(path: &Path, above: &str) -> anyhow::Result<Self> {
        let stat = rustix::fs::statfs(path).with_context(|| format!("statfs {}", path.display()))?;
        if stat.f_type as i64 != CGROUP2_MAGIC {
            bail!("{} is not a cgroup2 file system", path.display());
        }
        Ok(Self { path: path.to_owned(), above: above.trim_end_matches('/').to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a cgroup given by its path below the root.
    pub fn dir(&self, cgroup: &str) -> PathBuf {
        self.path.join(cgroup.trim_start_matches('/'))
    }

    /// The kernel's level of a cgroup: the root is 0.
    pub fn level(&self, cgroup: &str) -> u32 {
        self.whole(cgroup).split('/').filter(|p| !p.is_empty()).count() as u32
    }

    /// A cgroup's path from the real root, as the kernel tells it.
    pub fn whole(&self, cgroup: &str) -> String {
        format!("{}{cgroup}", self.above)
    }

    /// The cgroup's id, which is the inode number of its directory; `None` where it does not exist.
    pub fn id(&self, cgroup: &str) -> Option<u64> {
        Some(fs::metadata(self.dir(cgroup)).ok()?.ino())
    }

    /// Opens the cgroup's directory, as attaching a program to it needs.
    pub fn open(&self, cgroup: &str) -> anyhow::Result<OwnedFd> {
        let dir = self.dir(cgroup);
        Ok(fs::File::open(&dir).with_context(|| format!("open {}", dir.display()))?.into())
    }

    /// Every cgroup below `base` down to `depth` levels under the root, with its id, in the order of paths.
    ///
    /// A directory that vanishes while it is read is left out: it is no target any more.
    pub fn list(&self, base: &str, depth: usize) -> Vec<(String, u64)> {
        let base = base.trim_matches('/');
        let mut found = Vec::new();
        if base.is_empty() {
            self.walk("", depth, &mut found);
        } else if let Some(id) = self.id(base) {
            let base = format!("/{base}");
            found.push((base.clone(), id));
            self.walk(&base, depth, &mut found);
        }
        found.sort();
        found
    }

    /// What lies below a cgroup. The kernel tells a directory's inode number with its name.
    fn walk(&self, cgroup: &str, depth: usize, found: &mut Vec<(String, u64)>) {
        if cgroup.matches('/').count() >= depth {
            return;
        }
        let Ok(entries) = fs::read_dir(self.dir(cgroup)) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir())
                && let Some(name) = entry.file_name().to_str()
            {
                let below = format!("{cgroup}/{name}");
                found.push((below.clone(), entry.ino()));
                self.walk(&below, depth, found);
            }
        }
    }
}

fn steps(root: &str) -> impl Iterator<Item = &str> {
    root.split('/').filter(|p| !p.is_empty())
}

/// Where below the root of this process' cgroup namespace, or beside it, a mounted directory is.
fn below(root: &str) -> String {
    steps(root).filter(|p| *p != "..").map(|p| format!("/{p}")).collect()
}

/// Mount point and mounted root of the cgroup2 mount. Where there are several, the one that shows the most: in a cgroup
/// namespace what lies above its root begins with "/..".
fn parse_mountinfo(text: &str) -> Option<(PathBuf, String)> {
    text.lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next() == Some("cgroup2")).then_some(())?;
            let mut fields = before.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            Some((PathBuf::from(unescape(point)), unescape(root)))
        })
        .min_by_key(|(_, root)| (Reverse(steps(root).filter(|p| *p == "..").count()), root.len()))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |s, (code, plain)| s.replace(code, plain))
}

/// Whether a read error means that the cgroup is gone: ENODEV for open files, ENOENT for paths.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup2_on_unified_and_hybrid_machines() {
        let unified = "29 22 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse_mountinfo(unified), Some(("/sys/fs/cgroup".into(), "/".into())));
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      38 31 0:38 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_mountinfo(hybrid), Some(("/sys/fs/cgroup/unified".into(), "/".into())));
        assert_eq!(parse_mountinfo("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn prefers_the_whole_tree_and_unescapes_paths() {
        let two = "1 1 0:1 /a/b /mnt/sub rw - cgroup2 none rw\n2 1 0:1 / /mnt/my\\040tree rw - cgroup2 none rw\n";
        assert_eq!(parse_mountinfo(two), Some(("/mnt/my tree".into(), "/".into())));
    }

    #[test]
    fn prefers_what_lies_above_the_cgroup_namespace() {
        let pod = "1 1 0:1 / /mnt/own rw - cgroup2 none rw\n2 1 0:1 /../.. /sys/fs/cgroup ro - cgroup2 none rw\n";
        assert_eq!(parse_mountinfo(pod), Some(("/sys/fs/cgroup".into(), "/../..".into())));
        assert_eq!(["/", "/../..", "/../../a", "/a/b"].map(below), ["", "", "/a", "/a/b"]);
    }

    #[test]
    fn a_plain_directory_is_not_taken_for_cgroup2() {
        let error = Root::at(Path::new("/tmp"), "/").expect_err("tmp is not cgroup2");
        assert!(error.to_string().contains("not a cgroup2"), "{error}");
    }
}
