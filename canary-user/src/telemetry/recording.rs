//! A recording: JSON Lines, a header and then one [`Tick`] per line. Replay feeds it through the same line as live.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::Tick;

/// Version of the format; a reader refuses any other.
const FORMAT: u32 = 1;

/// First line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Always "canary-recording".
    pub kind: String,
    pub format: u32,
    /// Length of a window, in nanoseconds.
    pub window_ns: u64,
    /// Version of the program that recorded.
    pub program: String,
    /// Those that were watched from the first tick on, whether or not anything of them was there; empty where that is not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<String>,
    /// By deployment: what the judge knew of the service beforehand, in the judge's own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub earlier: BTreeMap<String, serde_json::Value>,
}

/// Writes a recording, one line per tick, flushed with each.
#[derive(Debug)]
pub struct Writer {
    out: BufWriter<File>,
}

impl Writer {
    /// Creates the file, of nobody in particular; refuses to overwrite one that exists.
    pub fn create(path: &Path, window_ns: u64) -> anyhow::Result<Self> {
        Self::knowing(path, window_ns, Vec::new(), BTreeMap::new())
    }

    /// The same of these deployments, and with what is known of the services beforehand: see [`Header`].
    pub fn knowing(
        path: &Path,
        window_ns: u64,
        deployments: Vec<String>,
        earlier: BTreeMap<String, serde_json::Value>,
    ) -> anyhow::Result<Self> {
        let file = File::create_new(path)
            .with_context(|| format!("create recording {}: choose a path that does not exist yet", path.display()))?;
        let header = Header {
            kind: "canary-recording".into(),
            format: FORMAT,
            window_ns,
            program: env!("CARGO_PKG_VERSION").into(),
            deployments,
            earlier,
        };
        let mut writer = Self { out: BufWriter::new(file) };
        writer.line(&header)?;
        Ok(writer)
    }

    pub fn tick(&mut self, tick: &Tick) -> anyhow::Result<()> {
        self.line(tick)
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, value).context("write the recording")?;
        self.out.write_all(b"\n").and_then(|()| self.out.flush()).context("write the recording")
    }
}

/// Reads a recording tick by tick.
#[derive(Debug)]
pub struct Reader {
    header: Header,
    lines: std::io::Lines<BufReader<File>>,
    line: usize,
    name: String,
    last_t_ns: u64,
}

impl Reader {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("open recording {name}"))?;
        let mut lines = BufReader::new(file).lines();
        let first = lines.next().with_context(|| format!("{name} is empty, not a recording"))??;
        let header: Header = serde_json::from_str(&first)
            .with_context(|| format!("{name}:1: not a recording's header: record one with `canary record`"))?;
        if header.kind != "canary-recording" {
            bail!("{name}:1: kind is \"{}\", not \"canary-recording\"", header.kind);
        }
        if header.format != FORMAT {
            bail!("{name}:1: format {}, this program reads format {FORMAT}", header.format);
        }
        Ok(Self { header, lines, line: 1, name, last_t_ns: 0 })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }
}

impl Iterator for Reader {
    type Item = anyhow::Result<Tick>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.lines.next()?;
        self.line += 1;
        let place = format!("{}:{}", self.name, self.line);
        let tick = text.with_context(|| place.clone()).and_then(|text| {
            let tick: Tick = serde_json::from_str(&text).with_context(|| format!("{place}: not a tick"))?;
            if tick.t_ns <= self.last_t_ns {
                bail!("{place}: time goes back: t_ns {} after {}", tick.t_ns, self.last_t_ns);
            }
            self.last_t_ns = tick.t_ns;
            Ok(tick)
        });
        Some(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_mistakes_have_a_place() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("run.jsonl");
        let earlier = BTreeMap::from([("shop".to_owned(), serde_json::json!({"cpu_per_work": 0.5}))]);
        let deployments = vec!["shop".to_owned(), "cart".to_owned()];
        let mut writer = Writer::knowing(&path, 100, deployments.clone(), earlier.clone()).expect("create");
        let ticks = [Tick { t_ns: 1, ..Tick::default() }, Tick { t_ns: 2, ..Tick::default() }];
        for tick in &ticks {
            writer.tick(tick).expect("write");
        }
        drop(writer);
        let reader = Reader::open(&path).expect("open");
        let Header { window_ns, deployments: watched, earlier: known, .. } = reader.header();
        assert_eq!((*window_ns, watched, known), (100, &deployments, &earlier));
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), ticks);
        assert!(Writer::create(&path, 100).expect_err("exists").to_string().contains("does not exist yet"));

        let mut text = std::fs::read_to_string(&path).expect("read");
        text.push_str("{\"t_ns\":2,\"unix_ms\":0,\"span_ns\":1,\"samples\":[]}\nnonsense\n");
        std::fs::write(&path, text).expect("write");
        let errors: Vec<String> =
            Reader::open(&path).expect("open").filter_map(|t| t.err()).map(|e| format!("{e:#}")).collect();
        assert!(errors[0].contains("run.jsonl:4: time goes back"), "{errors:?}");
        assert!(errors[1].contains("run.jsonl:5: not a tick"), "{errors:?}");
    }
}
