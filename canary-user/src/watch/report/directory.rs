//! The directory of reports: one HTML file for each of the latest decisions, and how often writing them went well.

use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;

/// Decisions whose reports are kept.
pub const KEPT: usize = 200;

/// At the end of the name of one that is being written.
const DRAFT: &str = ".part";

/// How often reports were written, and could not be. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<[AtomicU64; 2]>);

impl Counts {
    /// "written" and "failed", each with how often.
    pub fn results(&self) -> [(&'static str, u64); 2] {
        let [written, failed] = &*self.0;
        [("written", written.load(Ordering::Relaxed)), ("failed", failed.load(Ordering::Relaxed))]
    }
}

/// Where reports are written.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    counts: Counts,
    /// Whether the last one could not be written.
    is_failing: bool,
    /// Whether the last time an old one could not be removed.
    is_in_the_way: bool,
    /// Whether it was looked for what an earlier life of the guard left half written.
    is_swept: bool,
}

impl Directory {
    /// It is made with the first report.
    pub fn new(path: PathBuf) -> Self {
        Self { path, counts: Counts::default(), is_failing: false, is_in_the_way: false, is_swept: false }
    }

    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Writes the report of a decision, in place of what was written of it before, and removes those of the oldest. Returns what
    /// is to be told: why it failed, but of several failures in a row the first only.
    pub(super) fn write(&mut self, id: &str, html: &str) -> Option<anyhow::Error> {
        let done = write(&self.path, id, html);
        if done.is_ok() {
            self.tidy_up();
        }
        let was_failing = std::mem::replace(&mut self.is_failing, done.is_err());
        let [written, failed] = &*self.counts.0;
        let count = if done.is_ok() { written } else { failed };
        count.fetch_add(1, Ordering::Relaxed);
        done.err().filter(|_| !was_failing)
    }

    /// What cannot be removed is told once, and is no report that could not be written.
    fn tidy_up(&mut self) {
        let with_drafts = !std::mem::replace(&mut self.is_swept, true);
        let done = forget_the_oldest(&self.path, with_drafts);
        let was_told = std::mem::replace(&mut self.is_in_the_way, done.is_err());
        if let Some(error) = done.err().filter(|_| !was_told) {
            tracing::warn!("old reports stay: {error:#}");
        }
    }
}

/// Written beside its name first: nobody sees half a report.
fn write(directory: &Path, id: &str, text: &str) -> anyhow::Result<()> {
    let place = directory.join(format!("{}.html", file_name(id)));
    let what = || format!("write the report {}: see 'reports' in the configuration", place.display());
    // For the guard's user alone, as the journal beside it is meant to be.
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(what)?;
    let draft = place.with_extension(format!("html{DRAFT}"));
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &place));
    if written.is_err() {
        // On a disk that is full it would take room for nothing.
        let _ = fs::remove_file(&draft);
    }
    written.with_context(what)
}

/// A name of a deployment may hold what a file's name may not.
fn file_name(id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    id.chars().map(safe).collect()
}

/// Files that are not named as reports are belong to somebody else, and stay. What cannot be removed keeps no other from being
/// removed, and the first of them is told. `with_drafts`: those, too, that a guard which died in between has left.
fn forget_the_oldest(directory: &Path, with_drafts: bool) -> anyhow::Result<()> {
    let what = || format!("look for the oldest reports in {}", directory.display());
    let (mut reports, mut to_remove) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_draft = |name: &str| name.strip_suffix(DRAFT).and_then(decided).is_some();
        if let Some(decided) = decided(name) {
            reports.push((decided, path));
        } else if with_drafts && is_draft(name) {
            to_remove.push(path);
        }
    }
    reports.sort_unstable();
    let too_many = reports.len().saturating_sub(KEPT);
    to_remove.extend(reports.into_iter().take(too_many).map(|(_, path)| path));
    let mut done = Ok(());
    for path in to_remove {
        let removed = fs::remove_file(&path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        done = done.and(removed.with_context(|| format!("remove the old report {}", path.display())));
    }
    done
}

/// When the decision of a report of this name was made, in ms since 1970, and its number: the end of its id. `None` for any other
/// file.
fn decided(name: &str) -> Option<(u64, u64)> {
    let id = name.strip_suffix(".html")?;
    let (rest, number) = id.rsplit_once('-')?;
    let (_, unix_ms) = rest.rsplit_once('-')?;
    let read = |digits: &str, least: usize| -> Option<u64> {
        let is_number = digits.len() >= least && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    };
    Some((read(unix_ms, 13)?, read(number, 4)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn id(n: usize) -> String {
        format!("shop-{:013}-{n:04}", 1_795_000_000_000 + n)
    }

    #[test]
    fn the_reports_of_the_latest_decisions_are_kept_and_files_of_others_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("reports");
        let mut directory = Directory::new(path.clone());
        fs::create_dir(&path).expect("writable");
        let others = ["index.html", "incident-2026-11.html", "shop-1795000000000-0000.html.bak", "notes.txt"];
        others.iter().for_each(|name| fs::write(path.join(name), "mine").expect("writable"));
        // Not in the order of time: what is known later of an old decision makes it no younger.
        for n in (0..KEPT + 3).rev() {
            assert!(directory.write(&id(n), "a report").is_none());
        }
        assert!(directory.write(&id(KEPT), "the same anew").is_none());
        let there = |n: usize| path.join(format!("{}.html", id(n))).exists();
        assert_eq!((0..KEPT + 3).filter(|n| there(*n)).collect::<Vec<_>>(), (3..KEPT + 3).collect::<Vec<_>>());
        assert!(others.iter().all(|name| path.join(name).exists()), "they are somebody else's");
        assert_eq!(fs::read_dir(&path).expect("readable").count(), KEPT + others.len());
        let written = fs::read_to_string(path.join(format!("{}.html", id(KEPT)))).expect("a report");
        assert_eq!(written, "the same anew");
    }

    #[test]
    fn a_report_that_cannot_be_written_is_counted_and_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("reports");
        fs::write(&path, "a file is in its place").expect("writable");
        let mut directory = Directory::new(path.clone());
        let counts = directory.counts();
        let told = directory.write(&id(1), "a report").expect("it is told");
        assert!(format!("{told:#}").contains("see 'reports' in the configuration"), "{told:#}");
        assert!(directory.write(&id(2), "a report").is_none(), "once");
        assert_eq!(counts.results(), [("written", 0), ("failed", 2)]);
        fs::remove_file(&path).expect("there is one");
        assert!(directory.write(&id(3), "a report").is_none());
        assert_eq!(counts.results(), [("written", 1), ("failed", 2)]);
        fs::remove_dir_all(&path).expect("it was made");
        fs::write(&path, "again").expect("writable");
        assert!(directory.write(&id(4), "a report").is_some(), "and once when it begins anew");
    }

    #[test]
    fn an_old_report_that_cannot_be_removed_keeps_no_other_and_is_no_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut directory = Directory::new(dir.path().to_owned());
        fs::create_dir(dir.path().join(format!("{}.html", id(0)))).expect("writable");
        for n in 1..KEPT + 5 {
            assert!(directory.write(&id(n), "a report").is_none());
        }
        assert_eq!(directory.counts().results(), [("written", KEPT as u64 + 4), ("failed", 0)]);
        let there = |n: usize| dir.path().join(format!("{}.html", id(n))).exists();
        assert_eq!((0..KEPT + 5).filter(|n| there(*n)).count(), KEPT + 1, "one more, which stays");
        assert!(there(0) && (1..5).all(|n| !there(n)) && there(5));
    }

    #[test]
    fn what_a_guard_that_died_left_half_written_is_removed_and_files_of_others_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let [left, others] = [format!("{}.html.part", id(1)), "notes.html.part".to_owned()].map(|n| dir.path().join(n));
        [&left, &others].iter().for_each(|path| fs::write(path, "half a rep").expect("writable"));
        assert!(Directory::new(dir.path().to_owned()).write(&id(2), "a report").is_none());
        assert!(!left.exists() && others.exists());
    }

    #[test]
    fn a_directory_that_is_made_is_for_the_guards_user_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (made, there) = (dir.path().join("made"), dir.path().join("there"));
        fs::create_dir(&there).expect("writable");
        fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).expect("its own");
        for (path, mode) in [(&made, 0o700), (&there, 0o755)] {
            assert!(Directory::new(path.clone()).write(&id(1), "a report").is_none());
            let found = fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}: {found:o}", path.display());
        }
    }

    #[test]
    fn a_name_that_no_file_may_have_is_written_all_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut directory = Directory::new(dir.path().to_owned());
        assert!(directory.write("shop/eu: ü-1795000000000-0001", "a report").is_none());
        assert!(dir.path().join("shop_eu___-1795000000000-0001.html").exists());
    }
}
