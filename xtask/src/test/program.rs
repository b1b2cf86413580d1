//! One program of tests, from its start to its end: what it says is handed on as it comes, each minute it is told that it still runs, and
//! one that hangs is ended. One that has ended, and left something running which holds its output, is told as that.

use std::{
    io::{self, PipeReader, Read as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::Pid;

use super::{
    family,
    libtest::{Counts, Run},
};

const MINUTE: Duration = Duration::from_secs(60);
/// What was said until a program was ended has come through the pipe by then, whoever else may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How a program is watched.
pub struct Watch<'a> {
    /// Takes what a reader needs: failures, their output, reasons for skipping, and the counts.
    pub say: &'a mut dyn FnMut(String),
    /// Takes a line each minute.
    pub progress: &'a dyn Fn(&str),
    /// Who says nothing for so long hangs: each test that ends says a line.
    pub patience: Duration,
}

/// Where listening to a program ended.
enum End {
    /// Nobody holds its output any more.
    Whole,
    /// It has ended, and somebody does.
    Left,
    Hangs,
}

/// Runs a program to its end. One that hangs is ended with all that descends from it, and counts as one failure; what it said is shown.
/// So does one that leaves something running: whose that is nobody knows any more, and it is left.
///
/// # Errors
/// Where it cannot be started, or what it says cannot be read.
pub fn run(name: &str, command: &mut Command, watch: Watch<'_>) -> Result<Counts> {
    let Watch { say, progress, patience } = watch;
    say(format!("testing {name}"));
    let began = Instant::now();
    let (reader, writer) = io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("clone a pipe")?).stdout(writer);
    let mut child = Running(command.spawn().with_context(|| format!("start {command:?}"))?);
    // The command holds the pipe's writing ends; left open here, the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let said = chunks(reader);
    let mut lines = Lines { run: Run::default(), begun: Vec::new() };
    let mut pace = Pace { began, told_min: 0, silent: Duration::ZERO, patience };
    let end = loop {
        let wait = pace.wait(Instant::now());
        match said.recv_timeout(wait) {
            Ok(chunk) => {
                lines.take(&chunk.with_context(|| format!("read the output of {name}"))?, say);
                pace.heard();
            }
            Err(RecvTimeoutError::Timeout) if child.has_ended() => break End::Left,
            Err(RecvTimeoutError::Timeout) if pace.hangs_after(wait) => break End::Hangs,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break End::Whole,
        }
        if let Some(minutes) = pace.minutes(Instant::now()) {
            progress(&format!("{name} has run for {minutes} min{}", lines.test().unwrap_or_default()));
        }
    };
    let is_whole = match end {
        End::Whole => true,
        // Its last words may be on their way.
        End::Left => {
            let is_whole = last_words(&said, &mut lines, say);
            if !is_whole {
                say(format!("FAILED {name} has ended, and something that it started still has its output"));
            }
            is_whole
        }
        End::Hangs => {
            let (minutes, test) = (patience.as_secs() / 60, lines.test().unwrap_or_default());
            say(format!("FAILED {name} said nothing for {minutes} min and was ended{test}"));
            child.end();
            last_words(&said, &mut lines, say);
            false
        }
    };
    let success = is_whole && child.0.wait().with_context(|| format!("wait for {name}"))?.success();
    let ended = lines.end(say).end(success);
    for line in ended.unexplained {
        say(line);
    }
    say(format!("  {} in {} s", ended.counts, began.elapsed().as_secs()));
    Ok(ended.counts)
}

/// Takes what still comes; whether nobody holds the pipe open any more.
fn last_words(said: &Receiver<io::Result<Vec<u8>>>, lines: &mut Lines, say: &mut dyn FnMut(String)) -> bool {
    let until = Instant::now() + LAST_WORDS;
    loop {
        match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(chunk)) => lines.take(&chunk, say),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
        // Who goes on speaking is not waited for.
        if Instant::now() >= until {
            return false;
        }
    }
}

/// What comes out of a pipe, until nobody holds its other end. Read by a thread, so that it can be waited for with a limit.
fn chunks(mut reader: PipeReader) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, chunks) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|bytes| buffer[..bytes].to_vec()),
            };
            let is_last = read.is_err();
            if sender.send(read).is_err() || is_last {
                return;
            }
        }
    });
    chunks
}

/// Makes lines of what comes.
struct Lines {
    run: Run,
    /// The line that has no end yet.
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8], say: &mut dyn FnMut(String)) {
        self.begun.extend_from_slice(chunk);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            self.line(&line[..end], say);
        }
    }

    fn line(&mut self, line: &[u8], say: &mut dyn FnMut(String)) {
        for shown in self.run.line(&String::from_utf8_lossy(line)) {
            say(shown);
        }
    }

    /// Which test runs, where the program runs one after the other: it says so before, and how it went after it.
    fn test(&self) -> Option<String> {
        let name = str::from_utf8(&self.begun).ok()?.strip_prefix("test ")?.strip_suffix(" ... ")?;
        Some(format!(", in {name}"))
    }

    fn end(mut self, say: &mut dyn FnMut(String)) -> Run {
        let rest = std::mem::take(&mut self.begun);
        if !rest.is_empty() {
            self.line(&rest, say);
        }
        self.run
    }
}

/// When a program is told of, and when it hangs. Silence is what was waited for a word, and not what a clock shows: whoever is stopped
/// together with the program has not waited.
struct Pace {
    began: Instant,
    told_min: u32,
    silent: Duration,
    patience: Duration,
}

impl Pace {
    /// So long there is nothing to do but to listen.
    fn wait(&self, now: Instant) -> Duration {
        let next = self.began + MINUTE * (self.told_min + 1);
        next.saturating_duration_since(now).min(self.patience - self.silent)
    }

    fn heard(&mut self) {
        self.silent = Duration::ZERO;
    }

    /// Whether it hangs, when for so long there was no word again.
    fn hangs_after(&mut self, waited: Duration) -> bool {
        self.silent += waited;
        self.silent >= self.patience
    }

    /// How long it has run, once for each minute.
    fn minutes(&mut self, now: Instant) -> Option<u32> {
        let minutes = u32::try_from((now - self.began).as_secs() / MINUTE.as_secs()).unwrap_or(u32::MAX);
        (minutes > self.told_min).then(|| {
            self.told_min = minutes;
            minutes
        })
    }
}

/// Does not outlive us, however we leave.
struct Running(Child);

impl Running {
    fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }

    fn end(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            family::kill(Pid::from_child(&self.0));
            // Not waited for: the kernel may be what it hangs in.
            let _ = self.0.try_wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, fs};

    use rustix::process::{Signal, kill_process};

    use super::*;

    /// What a shell's words are watched to be: the counts, what was said, and the lines of progress.
    fn run_shell(script: &str, patience: Duration) -> (Counts, Vec<String>, Vec<String>) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        let (mut said, told) = (Vec::new(), RefCell::new(Vec::new()));
        let watch = Watch {
            say: &mut |line| said.push(line),
            progress: &|line| told.borrow_mut().push(line.to_owned()),
            patience,
        };
        let counts = run("a program", &mut command, watch).expect("it starts");
        (counts, said, told.into_inner())
    }

    /// Neither gone nor only waiting for its parent to take note.
    fn runs(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_started_and_what_it_said_is_shown() {
        let script = "sleep 100000 & echo 'running 2 tests'; echo \"child $!\"; echo 'test a ... ok'; printf 'test b ... '; wait";
        let (counts, said, _) = run_shell(script, Duration::from_secs(5));
        assert_eq!(counts, Counts { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(said[..2], ["testing a program", "FAILED a program said nothing for 0 min and was ended, in b"]);
        for line in ["test a ... ok", "test b ... "] {
            assert!(said.iter().any(|l| l == line), "{said:?}");
        }
        let child = said.iter().find_map(|line| line.strip_prefix("child ")).expect("its number is shown");
        while runs(child) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_that_leaves_something_running_is_told_as_that_and_not_as_one_that_hangs() {
        let script = "sleep 100000 & echo 'running 1 test'; echo 'test a ... ok'; echo 'test result: ok. 1 passed; 0 failed; \
            0 ignored; 0 measured; 0 filtered out; finished in 0.01s'; echo \"child $!\"";
        let (counts, said, _) = run_shell(script, Duration::from_secs(5));
        let child = said.iter().find_map(|line| line.strip_prefix("child ")).expect("its number is shown");
        let child = Pid::from_raw(child.parse().expect("a number")).expect("a process");
        kill_process(child, Signal::KILL).expect("it was left");
        assert_eq!(counts, Counts { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(said[1], "FAILED a program has ended, and something that it started still has its output");
        assert!(!said.iter().any(|line| line.contains("said nothing")), "{said:?}");
    }

    #[test]
    fn one_that_ends_is_counted_to_its_last_line_also_without_an_end() {
        let script = "printf 'running 1 test\\ntest a ... '; sleep 0.01; printf 'ok\\n\\ntest result: ok. 1 passed; 0 failed; 0 ignored; \
            0 measured; 0 filtered out; finished in 0.01s'";
        let (counts, said, told) = run_shell(script, Duration::from_secs(3600));
        assert_eq!(counts, Counts { passed: 1, failed: 0, skipped: 0 });
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn each_minute_is_told_once_and_whoever_speaks_does_not_hang() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut pace = Pace { began, told_min: 0, silent: Duration::ZERO, patience: Duration::from_secs(100) };
        assert_eq!(pace.wait(at(20)), Duration::from_secs(40));
        assert_eq!((pace.minutes(at(59)), pace.minutes(at(60)), pace.minutes(at(61))), (None, Some(1), None));
        assert!(!pace.hangs_after(Duration::from_secs(90)));
        assert_eq!(pace.wait(at(61)), Duration::from_secs(10), "the end of the patience comes first");
        pace.heard();
        assert!(!pace.hangs_after(Duration::from_secs(99)));
        // Everything was stopped for an hour: that was no waiting.
        assert_eq!((pace.minutes(at(3700)), pace.wait(at(3700))), (Some(61), Duration::from_secs(1)));
        assert!(pace.hangs_after(Duration::from_secs(1)));
    }

    #[test]
    fn the_test_that_runs_is_named_where_one_runs_at_a_time() {
        let mut lines = Lines { run: Run::default(), begun: Vec::new() };
        let mut nobody = |_: String| {};
        lines.take(b"running 2 tests\ntest a ... ok\ntest mod::b ..", &mut nobody);
        assert_eq!(lines.test(), None);
        lines.take(b". ", &mut nobody);
        assert_eq!(lines.test().as_deref(), Some(", in mod::b"));
        lines.take(b"ok\n", &mut nobody);
        assert_eq!(lines.test(), None);
    }
}
