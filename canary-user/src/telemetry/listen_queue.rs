//! Overflows of listen queues. The kernel counts them by network namespace, so that they are known only of targets that
//! have one to themselves.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{ListenQueue, kernel_file::KernelFile};

/// Looking through all processes takes some milliseconds: new targets wait this long at most, and …
const LOOK_EVERY_NS: u64 = 5_000_000_000;
/// … all are looked at again after this.
const LOOK_AGAIN_NS: u64 = 60_000_000_000;

/// Who is in which network namespace, as of the last look.
#[derive(Debug, Default)]
pub struct Namespaces {
    looked_ns: Option<u64>,
    /// Pids by the namespace's inode.
    pids: BTreeMap<u64, Vec<u32>>,
}

/// What is known of one target's namespace.
#[derive(Debug, Default)]
pub struct ListenQueueFile {
    /// Whether it stays open.
    held: bool,
    file: Option<KernelFile>,
    /// The namespace that the file tells of, by its inode: an open file goes on telling of it, whoever is in it.
    namespace: Option<u64>,
    before: Option<ListenQueue>,
    decided_ns: Option<u64>,
}

impl Namespaces {
    /// Looks through all processes where it is time to, for a target that is not `decided` or long ago.
    fn look(&mut self, now_ns: u64) {
        if self.looked_ns.is_some_and(|at| now_ns.saturating_sub(at) < LOOK_EVERY_NS) {
            return;
        }
        self.looked_ns = Some(now_ns);
        self.pids.clear();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(namespace) = of(pid) {
                self.pids.entry(namespace).or_default().push(pid);
            }
        }
    }
}

/// A process that cannot be seen into is in no namespace that is known.
fn of(pid: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

impl ListenQueueFile {
    /// See [`KernelFile::open`] for `held`.
    pub fn new(held: bool) -> Self {
        Self { held, ..Self::default() }
    }

    /// What was counted since the last reading; `None` at the first, and where the namespace is shared.
    pub fn read(&mut self, dir: &Path, namespaces: &mut Namespaces, now_ns: u64) -> Option<ListenQueue> {
        if self.decided_ns.is_none_or(|at| now_ns.saturating_sub(at) >= LOOK_AGAIN_NS) {
            self.decide(dir, namespaces, now_ns);
        }
        let text = self.file.as_ref().map_or(Ok(None), KernelFile::read).unwrap_or_else(|_| {
            // The process through which it was looked into ended; another may live there.
            (self.file, self.decided_ns) = (None, None);
            None
        });
        let now = text.as_deref().and_then(parse);
        let before = std::mem::replace(&mut self.before, now);
        before.zip(now).and_then(|(before, now)| between(before, now))
    }

    fn decide(&mut self, dir: &Path, namespaces: &mut Namespaces, now_ns: u64) {
        let mut own = Vec::new();
        super::processes::collect_pids(dir, &mut own);
        let Some((pid, namespace)) = own.iter().find_map(|pid| Some((*pid, of(*pid)?))) else { return };
        namespaces.look(now_ns);
        // Not yet in the last look: the next one decides.
        let Some(pids) = namespaces.pids.get(&namespace).filter(|pids| pids.contains(&pid)) else { return };
        self.decided_ns = Some(now_ns);
        let alone = pids.iter().all(|pid| own.contains(pid) || of(*pid) != Some(namespace));
        if !alone {
            (self.file, self.namespace, self.before) = (None, None, None);
        } else if self.file.is_none() || self.namespace != Some(namespace) {
            self.file = KernelFile::open(Path::new(&format!("/proc/{pid}/net")), "netstat", self.held);
            (self.namespace, self.before) = (Some(namespace), None);
        }
    }
}

/// `None` where a count went back: it is another namespace's.
fn between(before: ListenQueue, now: ListenQueue) -> Option<ListenQueue> {
    Some(ListenQueue {
        overflows: now.overflows.checked_sub(before.overflows)?,
        drops: now.drops.checked_sub(before.drops)?,
    })
}

/// The file has pairs of lines: names, then values, each with its group in front.
fn parse(text: &str) -> Option<ListenQueue> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |name: &str| {
        let i = names.split_whitespace().position(|n| n == name)?;
        values.split_whitespace().nth(i)?.parse().ok()
    };
    Some(ListenQueue { overflows: value("ListenOverflows")?, drops: value("ListenDrops")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_the_processes_left_is_read_no_more() {
        let dir = tempfile::tempdir().expect("tempdir");
        let pid = std::process::id();
        fs::write(dir.path().join("cgroup.procs"), format!("{pid}\n")).expect("written");
        fs::write(dir.path().join("netstat"), "TcpExt: ListenOverflows ListenDrops\nTcpExt: 7 7\n").expect("written");
        let here = of(pid).expect("the namespace of this process");
        // As if nobody else were in it.
        let mut namespaces = Namespaces { looked_ns: Some(0), pids: BTreeMap::from([(here, vec![pid])]) };
        let mut queue = ListenQueueFile {
            file: KernelFile::open(dir.path(), "netstat", true),
            namespace: Some(here + 1),
            before: Some(ListenQueue { overflows: 7, drops: 7 }),
            ..ListenQueueFile::new(true)
        };
        assert_eq!(queue.read(dir.path(), &mut namespaces, 1), None, "what was counted there is of others by now");
        assert_eq!(queue.namespace, Some(here));
        let ours = KernelFile::open(Path::new("/proc/self/net"), "netstat", true).expect("this kernel has TCP");
        assert_eq!(queue.before, ours.read().expect("there").as_deref().and_then(parse), "of this namespace");
    }

    #[test]
    fn reads_the_values_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: InOctets\nIpExt: 9\n";
        assert_eq!(parse(text), Some(ListenQueue { overflows: 22, drops: 333 }));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
    }

    #[test]
    fn a_count_that_went_back_is_no_data() {
        let counts = |overflows: u64, drops: u64| ListenQueue { overflows, drops };
        assert_eq!(between(counts(3, 7), counts(5, 7)), Some(counts(2, 0)));
        assert_eq!(between(counts(3, 7), counts(5, 6)), None);
    }
}
