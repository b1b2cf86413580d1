//! The limits of the cgroups above a target: a slice's, a pod's. They hold for it as its own do.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    Above, Throttling,
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
    /// While a CPU limit is set.
    cpu_stat: Option<KernelFile>,
    before: Option<Throttling>,
    /// The tick in which this was read, by its end.
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
        let mut dir = root.to_owned();
        let mut nearest = None;
        let mut names = cgroup.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            // The last one is the cgroup itself.
            if names.peek().is_some() {
                dir.push(name);
                nearest = self.at(&dir, nearest);
            }
        }
        nearest
    }

    /// Where it has no controller whose limit counts here, its parent is as good.
    fn at(&mut self, dir: &Path, parent: Option<Arc<Ancestor>>) -> Option<Arc<Ancestor>> {
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
        let ancestor = Arc::new(Ancestor { dir: dir.to_owned(), id, parent, holder, books: Mutex::default() });
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
    /// What the limits are is looked up only where it is the `turn` of who asks, so that not all are in the same tick.
    pub fn read(&self, t_ns: u64, turn: bool) -> Option<Above> {
        let further = self.parent.as_ref().and_then(|parent| parent.read(t_ns, turn));
        // Nothing is left half done by a panic in between.
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = books.limits_read_ns.is_none_or(|at| t_ns.saturating_sub(at) >= LIMITS_EVERY_NS);
        if is_old && (turn || books.limits_read_ns.is_none()) {
            books.limits_read_ns = Some(t_ns);
            books.read_limits(&self.dir, self.holder.is_some());
        }
        if books.tick_ns != Some(t_ns) {
            books.tick_ns = Some(t_ns);
            books.read_throttling();
        }
        let here = Above { throttling: books.throttling, memory_limit_bytes: books.memory_limit_bytes };
        Some(further.map_or(here, |further| tighter(here, further))).filter(|above| *above != Above::default())
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

    fn read_throttling(&mut self) {
        let text = read(self.cpu_stat.as_ref()).ok().flatten();
        let now = text.as_deref().and_then(throttling);
        let before = std::mem::replace(&mut self.before, now);
        self.throttling = before.zip(now).and_then(|(before, now)| throttling_between(before, now));
    }
}

/// Of each limit the one that leaves less.
fn tighter(one: Above, other: Above) -> Above {
    let share = |throttling: &Throttling| throttling.share().unwrap_or(0.0);
    let throttled = one.throttling.into_iter().chain(other.throttling);
    Above {
        throttling: throttled.max_by(|a, b| share(a).total_cmp(&share(b))),
        memory_limit_bytes: one.memory_limit_bytes.into_iter().chain(other.memory_limit_bytes).min(),
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
        let begin = Some(Above { throttling: None, memory_limit_bytes: Some(1000) });
        assert_eq!(one.read(SECOND_NS, true), begin, "a difference needs two");

        throttled(&slice, 10, 2);
        throttled(&pod, 10, 7);
        let held = Throttling { periods: 10, throttled_periods: 7, throttled_usec: 0 };
        let above = Some(Above { throttling: Some(held), memory_limit_bytes: Some(1000) });
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
