//! The limits of the cgroups above a target: a slice's, a pod's. They hold for it as its own do.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    Above, MemoryLimit, Throttling,
    cgroupfs::{read, throttling, throttling_between},
    kernel_file::KernelFile,
};

/// Limits are set now and then only. How much a CPU limit held back is read in every tick.
const LIMITS_EVERY_NS: u64 = 10_000_000_000;

/// All that lie above any target, each once: most targets share theirs.
#[derive(Debug)]
pub struct Ancestors {
    known: BTreeMap<PathBuf, Weak<Ancestor>>,
    /// A copy for each that may keep a file open …
    holders: Arc<()>,
    /// … of which there are so many at most.
    room: u32,
}

/// A cgroup that may have limits, and those above it.
#[derive(Debug)]
pub struct Ancestor {
    dir: PathBuf,
    /// Its path below the root, as targets have theirs.
    cgroup: Arc<str>,
    /// A cgroup that was made again under the same path has another one.
    id: u64,
    parent: Option<Arc<Ancestor>>,
    holder: Option<Arc<()>>,
    books: Mutex<Books>,
}

/// What was read last, of the cgroup itself.
#[derive(Debug, Default)]
struct Books {
    limits_read_ns: Option<u64>,
    memory_limit_bytes: Option<u64>,
    /// While a memory limit is set.
    memory_in_use_bytes: Option<u64>,
    /// The tick in which this was read, by its end.
    memory_read_ns: Option<u64>,
    /// While a CPU limit is set.
    cpu_stat: Option<KernelFile>,
    before: Option<Throttling>,
    /// The tick in which `throttling` was read, by its end.
    tick_ns: Option<u64>,
    throttling: Option<Throttling>,
}

impl Ancestors {
    /// Files of `room` ancestors may stay open.
    pub fn new(room: u32) -> Self {
        Self { known: BTreeMap::new(), holders: Arc::new(()), room }
    }

    /// The nearest above a cgroup that can have limits, which knows those above itself; the root has none.
    pub fn of(&mut self, root: &Path, cgroup: &str) -> Option<Arc<Ancestor>> {
        let (mut dir, mut path) = (root.to_owned(), String::new());
        let mut nearest = None;
        let mut names = cgroup.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            // The last one is the cgroup itself.
            if names.peek().is_some() {
                dir.push(name);
                path = format!("{path}/{name}");
                nearest = self.at(&dir, &path, nearest);
            }
        }
        nearest
    }

    /// Where it has no controller whose limit counts here, its parent is as good.
    fn at(&mut self, dir: &Path, path: &str, parent: Option<Arc<Ancestor>>) -> Option<Arc<Ancestor>> {
        let Ok(metadata) = fs::metadata(dir) else { return parent };
        let id = metadata.ino();
        let known = self.known.get(dir).and_then(Weak::upgrade).filter(|known| known.id == id);
        if known.is_some() {
            return known;
        }
        if !["cpu.max", "memory.max"].iter().any(|limit| dir.join(limit).exists()) {
            return parent;
        }
        // One of the copies is the registry's own.
        let has_room = Arc::strong_count(&self.holders) <= self.room as usize;
        let holder = has_room.then(|| self.holders.clone());
        let ancestor = Arc::new(Ancestor {
            dir: dir.to_owned(),
            cgroup: path.into(),
            id,
            parent,
            holder,
            books: Mutex::default(),
        });
        self.known.insert(dir.to_owned(), Arc::downgrade(&ancestor));
        Some(ancestor)
    }

    /// Forgets those below which there is no target any more.
    pub fn tidy(&mut self) {
        self.known.retain(|_, ancestor| ancestor.strong_count() > 0);
    }
}

impl Ancestor {
    /// The tightest limits here and further up, as of the tick that ends at `t_ns`: each is read once in it, however many ask.
    /// What the limits are, and how full that of memory is, is looked up only where it is the `turn` of who asks, so that not all are
    /// in the same tick.
    pub fn read(&self, t_ns: u64, turn: bool) -> Option<Above> {
        let further = self.parent.as_ref().and_then(|parent| parent.read(t_ns, turn));
        // Nothing is left half done by a panic in between.
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = books.limits_read_ns.is_none_or(|at| t_ns.saturating_sub(at) >= LIMITS_EVERY_NS);
        if is_old && (turn || books.limits_read_ns.is_none()) {
            books.limits_read_ns = Some(t_ns);
            books.read_limits(&self.dir, self.holder.is_some());
        }
        if (turn || books.memory_read_ns.is_none()) && books.memory_read_ns != Some(t_ns) {
            books.memory_read_ns = Some(t_ns);
            books.read_memory(&self.dir);
        }
        if books.tick_ns != Some(t_ns) {
            books.tick_ns = Some(t_ns);
            books.read_throttling();
        }
        let here = books.told(&self.cgroup);
        let tightest = match further {
            Some(further) => tighter(here, further),
            None => here,
        };
        Some(tightest).filter(|above| *above != Above::default())
    }
}

impl Books {
    fn read_limits(&mut self, dir: &Path, held: bool) {
        let text = |name: &str| KernelFile::open(dir, name, true)?.read().ok()?;
        self.memory_limit_bytes = text("memory.max").and_then(|limit| limit.trim().parse().ok());
        if text("cpu.max").is_none_or(|limit| limit.starts_with("max")) {
            (self.cpu_stat, self.before) = (None, None);
        } else if self.cpu_stat.is_none() {
            self.cpu_stat = KernelFile::open(dir, "cpu.stat", held);
        }
    }

    fn read_memory(&mut self, dir: &Path) {
        let in_use = || KernelFile::open(dir, "memory.current", true)?.read().ok()?;
        self.memory_in_use_bytes =
            self.memory_limit_bytes.and_then(|_| in_use()).and_then(|bytes| bytes.trim().parse().ok());
    }

    fn read_throttling(&mut self) {
        let text = read(self.cpu_stat.as_ref()).ok().flatten();
        let now = text.as_deref().and_then(throttling);
        let before = std::mem::replace(&mut self.before, now);
        self.throttling = before.zip(now).and_then(|(before, now)| throttling_between(before, now));
    }

    /// What there is to say of the limits that `cgroup`, whose books these are, has itself.
    fn told(&self, cgroup: &Arc<str>) -> Above {
        let memory = self.memory_limit_bytes.zip(self.memory_in_use_bytes);
        Above {
            throttling: self.throttling,
            throttled_by: self.throttling.map(|_| cgroup.clone()),
            memory_limit_bytes: self.memory_limit_bytes,
            memory: memory.map(|(limit_bytes, in_use_bytes)| MemoryLimit {
                cgroup: cgroup.clone(),
                limit_bytes,
                in_use_bytes,
            }),
        }
    }
}

/// Of each limit the one that leaves less, and of two that leave as much the nearer one.
fn tighter(here: Above, further: Above) -> Above {
    let share = |above: &Above| above.throttling.map(|throttling| throttling.share().unwrap_or(0.0));
    let further_holds_back = share(&further) > share(&here);
    // One of which it is not known how full it is may be the fullest.
    let is_known = [&here, &further].into_iter().all(|a| a.memory.is_some() || a.memory_limit_bytes.is_none());
    let (throttling, throttled_by) = if further_holds_back {
        (further.throttling, further.throttled_by)
    } else {
        (here.throttling, here.throttled_by)
    };
    Above {
        throttling,
        throttled_by,
        memory_limit_bytes: here.memory_limit_bytes.into_iter().chain(further.memory_limit_bytes).min(),
        memory: here.memory.into_iter().chain(further.memory).min_by_key(MemoryLimit::left_bytes).filter(|_| is_known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn write(dir: &Path, file: &str, text: &str) {
        fs::create_dir_all(dir).expect("made");
        fs::write(dir.join(file), text).expect("written");
    }

    fn throttled(dir: &Path, periods: u64, throttled: u64) {
        write(
            dir,
            "cpu.stat",
            &format!("usage_usec 1\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec 9\n"),
        );
    }

    #[test]
    fn the_tightest_limit_of_those_above_holds() {
        let root = tempfile::tempdir().expect("tempdir");
        let (slice, pod) = (root.path().join("slice"), root.path().join("slice/pod"));
        for (dir, cpu, memory) in [(&slice, "50000 100000", "1000\n"), (&pod, "20000 100000", "max\n")] {
            write(dir, "cpu.max", cpu);
            write(dir, "memory.max", memory);
            throttled(dir, 0, 0);
        }
        let mut ancestors = Ancestors::new(1);
        let one = ancestors.of(root.path(), "/slice/pod/one").expect("has limits");
        let other = ancestors.of(root.path(), "/slice/pod/other").expect("has limits");
        assert!(Arc::ptr_eq(&one, &other), "one for both");
        assert!(ancestors.of(root.path(), "/slice").is_none(), "the root limits nobody");
        let begin = Some(Above { memory_limit_bytes: Some(1000), ..Above::default() });
        assert_eq!(one.read(SECOND_NS, true), begin, "a difference needs two");

        throttled(&slice, 10, 2);
        throttled(&pod, 10, 7);
        let held = Throttling { periods: 10, throttled_periods: 7, throttled_usec: 0 };
        let throttled_by = Some("/slice/pod".into());
        let above = Some(Above { throttling: Some(held), throttled_by, memory_limit_bytes: Some(1000), memory: None });
        assert_eq!(one.read(2 * SECOND_NS, false), above);
        throttled(&pod, 20, 20);
        assert_eq!(other.read(2 * SECOND_NS, false), above, "read once in a tick");

        // Whoever sets limits is seen later on, and in the turn of a target only.
        write(&pod, "cpu.max", "max 100000");
        write(&pod, "memory.max", "400\n");
        let limits = |t_ns, turn| other.read(t_ns, turn).map(|a| (a.throttling, a.memory_limit_bytes));
        let of_slice = Some(Throttling { throttled_periods: 0, periods: 0, throttled_usec: 0 });
        assert!(limits(10 * SECOND_NS, true).is_some_and(|(_, memory)| memory == Some(1000)), "not yet");
        assert!(limits(11 * SECOND_NS, false).is_some_and(|(_, memory)| memory == Some(1000)), "not its turn");
        assert_eq!(limits(12 * SECOND_NS, true), Some((of_slice, Some(400))));
        let by = other.read(13 * SECOND_NS, true).and_then(|above| above.throttled_by);
        assert_eq!(by.as_deref(), Some("/slice"));
    }

    #[test]
    fn of_memory_limits_the_fullest_is_told_which_need_not_be_the_smallest() {
        let root = tempfile::tempdir().expect("tempdir");
        let (slice, pod) = (root.path().join("slice"), root.path().join("slice/pod"));
        write(&slice, "memory.max", "8000\n");
        write(&slice, "memory.current", "7900\n");
        write(&pod, "memory.max", "4000\n");
        write(&pod, "memory.current", "1000\n");
        let above = Ancestors::new(0).of(root.path(), "/slice/pod/one").expect("has limits");
        let told = |second: u64, turn: bool| above.read(second * SECOND_NS, turn).expect("has limits");
        let limit = |cgroup: &str, limit_bytes, in_use_bytes| {
            Some(MemoryLimit { cgroup: cgroup.into(), limit_bytes, in_use_bytes })
        };
        let first = told(1, false);
        assert_eq!((first.memory_limit_bytes, first.memory), (Some(4000), limit("/slice", 8000, 7900)));
        write(&pod, "memory.current", "3990\n");
        assert_eq!(told(2, false).memory, limit("/slice", 8000, 7900), "not its turn");
        assert_eq!(told(2, true).memory, limit("/slice/pod", 4000, 3990));
        // The one of which it is not known may be the fullest.
        fs::remove_file(slice.join("memory.current")).expect("removed");
        let unknown = told(3, true);
        assert_eq!((unknown.memory_limit_bytes, unknown.memory), (Some(4000), None));
    }

    #[test]
    fn who_has_no_limit_and_no_controller_says_nothing_and_is_forgotten_with_the_last_below() {
        let root = tempfile::tempdir().expect("tempdir");
        let slice = root.path().join("slice");
        write(&slice, "cpu.max", "max 100000");
        write(&slice, "memory.max", "max");
        fs::create_dir(slice.join("plain")).expect("made");
        let mut ancestors = Ancestors::new(0);
        let above = ancestors.of(root.path(), "/slice/plain/one").expect("the slice could have limits");
        assert_eq!(above.dir, slice, "what has no controller is passed over");
        assert_eq!([1, 2].map(|second| above.read(second * SECOND_NS, true)), [None, None]);
        ancestors.tidy();
        assert_eq!(ancestors.known.len(), 1);
        drop(above);
        ancestors.tidy();
        assert!(ancestors.known.is_empty());
    }

    #[test]
    fn files_stay_open_of_as_many_as_there_is_room_for() {
        let root = tempfile::tempdir().expect("tempdir");
        let mut ancestors = Ancestors::new(2);
        let names = ["a", "b", "c"];
        for name in names {
            write(&root.path().join(name), "cpu.max", "max");
        }
        let mut above = |name: &str| ancestors.of(root.path(), &format!("/{name}/one")).expect("has a controller");
        let all = names.map(&mut above);
        assert_eq!(all.each_ref().map(|a| a.holder.is_some()), [true, true, false]);
        drop(all);
        assert!(above("c").holder.is_some(), "those that are gone leave room");
    }
}
