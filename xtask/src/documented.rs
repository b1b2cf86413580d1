//! Every `cargo xtask …` that a page, CI or the image quotes is a command line that this program takes.

use clap::{Parser as _, error::ErrorKind};

use super::Options;

#[path = "../../canary-user/tests/docs/markdown.rs"]
mod markdown;

#[test]
fn quoted_commands_are_taken_by_the_program() {
    let mut pages = markdown::pages();
    // Shell and image alike: each command as if it were indented in a page.
    for name in [".ci/run", "deploy/Dockerfile"] {
        let text = markdown::read(name);
        let lines = text.lines().map(|l| l.trim().trim_start_matches("RUN "));
        pages.push(markdown::Page { text: lines.map(|l| format!("    {l}\n")).collect(), name: name.to_owned() });
    }
    let mut seen = 0;
    for page in pages {
        for (place, words) in markdown::commands(&page, &["cargo", "xtask"]) {
            // What the demo takes is checked where the demo is.
            let words: Vec<String> =
                if words[0] == "run" && !words.contains(&"--help".to_owned()) { vec!["run".into()] } else { words };
            seen += 1;
            let taken = Options::try_parse_from(std::iter::once("cargo xtask".to_owned()).chain(words.iter().cloned()));
            if let Err(error) = taken {
                assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{place}: {}: {error}", words.join(" "));
            }
        }
    }
    assert!(seen > 10, "only {seen} commands were found: does the reader of the pages still work?");
}
