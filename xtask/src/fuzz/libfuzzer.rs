//! One target under libFuzzer: how it is started, and what it says while it runs and when it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::seeds::{self, Seeds};
use crate::{cargo, progress::Step};

/// What one input may take before that is an error: a minute, and 2 GiB.
pub const LIMITS: [&str; 2] = ["-timeout=60", "-rss_limit_mb=2048"];
/// Longer inputs reach nothing more, and take longer.
const MOST_BYTES: usize = 64 * 1024;
/// So much of what is said about an error is passed on: a panic with its stack.
const MOST_LINES: usize = 200;

/// What libFuzzer ends with where it is asked to end, by SIGINT or SIGTERM.
const INTERRUPTED: i32 = 72;

/// A target, ready to run.
pub struct Fuzzer {
    pub name: &'static str,
    pub program: PathBuf,
    pub seeds: Seeds,
}

impl Fuzzer {
    /// Fuzzes for so long. Answers in words what was found, with the input that it was found on.
    pub fn run(&self, minutes: u64) -> Result<Option<String>> {
        let fuzz = cargo::repository().join("fuzz");
        let (corpus, artifacts) = (fuzz.join("corpus").join(self.name), fuzz.join("artifacts").join(self.name));
        let dictionary = fuzz.join("corpus").join(format!("{}.dict", self.name));
        for directory in [&corpus, &artifacts] {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        for (name, text) in &self.seeds {
            write(&corpus.join(format!("seed-{name}")), text)?;
        }
        write(&dictionary, &seeds::dictionary(&self.seeds))?;

        let step = Step::start(format!("fuzz {} for {minutes} min", self.name));
        let mut command = Command::new(&self.program);
        command.arg(&corpus).args(LIMITS).args([
            format!("-max_total_time={}", minutes * 60),
            format!("-max_len={MOST_BYTES}"),
            format!("-dict={}", dictionary.display()),
            // The slash makes it a directory.
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
        ]);
        // The stack of a panic, but not of each error that refuses an input: that takes longer than reading it.
        command.env("RUST_BACKTRACE", "1").env("RUST_LIB_BACKTRACE", "0");
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        let stderr = child.stderr.take().expect("stderr was asked to be piped");
        let mut said = Said::default();
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.with_context(|| format!("read what the target {} says", self.name))?;
            let line = String::from_utf8_lossy(&line);
            said.line(&line);
            if line.starts_with('#') {
                step.detail(&line);
            }
        }
        let status = child.wait().with_context(|| format!("wait for {}", self.program.display()))?;
        if status.success() {
            if said.inputs == 0 {
                bail!("the target {} ended without a word of what it did", self.name);
            }
            step.done(&format!("{} inputs, {} features of the code reached, no panic", said.inputs, said.features));
            return Ok(None);
        }
        if status.code() == Some(INTERRUPTED) {
            bail!("somebody ended the target {} before its time: nothing was found until then", self.name);
        }
        drop(step);
        Ok(Some(said.finding(self.name, &status.to_string())))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// What it said until now.
#[derive(Default)]
struct Said {
    inputs: u64,
    features: u64,
    /// The input that it kept last.
    kept: Option<String>,
    /// From the first word of an error on.
    error: Vec<String>,
}

impl Said {
    fn line(&mut self, line: &str) {
        if line.starts_with('#') {
            self.features = number_after(line, "ft:").unwrap_or(self.features);
        } else if let Some(inputs) = number_after(line, "stat::number_of_executed_units:") {
            self.inputs = inputs;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.kept = Some(path.trim().to_owned());
        } else if line.contains("panicked at") || line.contains("ERROR: libFuzzer") || !self.error.is_empty() {
            let is_told = self.error.len() < MOST_LINES
                && !["stat::", "MS: ", "0x", "Base64: "].iter().any(|s| line.starts_with(s));
            if is_told {
                self.error.push(line.to_owned());
            }
        }
    }

    fn finding(&self, target: &str, status: &str) -> String {
        let mut text = self.error.join("\n");
        text += &match &self.kept {
            Some(path) => {
                format!("\n{target}: the input lies in {path}\nonce more: cargo xtask fuzz {target} --input {path}")
            }
            None => format!("\n{target}: it ended with {status} and kept no input"),
        };
        text
    }
}

fn number_after(line: &str, word: &str) -> Option<u64> {
    line.split_whitespace().skip_while(|w| *w != word).nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Said {
        let mut said = Said::default();
        text.lines().for_each(|line| said.line(line));
        said
    }

    #[test]
    fn inputs_and_features_are_read() {
        let said = said(
            "INFO: Seed: 1\n#6\tINITED cov: 900 ft: 1800 corp: 5/40Kb exec/s: 0 rss: 60Mb\n\
             #900\tDONE   cov: 950 ft: 2100 corp: 70/500Kb lim: 4096 exec/s: 90 rss: 80Mb\n\
             Done 900 runs in 10 second(s)\nstat::number_of_executed_units: 900\nstat::peak_rss_mb:               80\n",
        );
        assert_eq!((said.inputs, said.features, said.kept, said.error.len()), (900, 2100, None, 0));
    }

    #[test]
    fn a_panic_is_told_with_its_input_and_how_to_run_it_again() {
        let said = said(
            "#6\tINITED cov: 900 ft: 1800 corp: 5/40Kb exec/s: 0 rss: 60Mb\n\
             thread '<unnamed>' (7) panicked at canary-user/src/judge/mod.rs:1:1:\nattempt to add with overflow\n\
             ==7== ERROR: libFuzzer: deadly signal\nSUMMARY: libFuzzer: deadly signal\nMS: 1 EraseBytes-; base unit: 00\n\
             0x7b,0xa,\nartifact_prefix='/r/'; Test unit written to /r/crash-1\nBase64: e30K\n",
        );
        let found = said.finding("table", "signal: 6");
        assert!(
            found.starts_with("thread '<unnamed>' (7) panicked at canary-user/src/judge/mod.rs:1:1:\nattempt"),
            "{found}"
        );
        assert!(found.ends_with("once more: cargo xtask fuzz table --input /r/crash-1"), "{found}");
        assert!(!found.contains("0x7b") && !found.contains("INITED"), "{found}");
    }

    #[test]
    fn an_end_without_an_input_is_told_as_that() {
        let found = said("").finding("table", "exit status: 127");
        assert!(found.contains("table: it ended with exit status: 127"), "{found}");
    }
}
