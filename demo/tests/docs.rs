//! The demo's options, as the pages quote them and as `cargo xtask run --help` shows them.

use std::fs;

use canary_demo::run;
use clap::{CommandFactory as _, Parser};

#[path = "../../canary-user/tests/docs/markdown.rs"]
mod markdown;

#[derive(Parser)]
#[command(name = "canary-demo run", disable_help_flag = true)]
struct Demo {
    #[command(flatten)]
    _options: run::Options,
}

#[test]
fn quoted_options_are_taken_by_the_demo() {
    let mut seen = 0;
    for page in markdown::pages() {
        for program in [&["cargo", "xtask", "run"][..], &["canary-demo", "run"]] {
            for (place, words) in markdown::commands(&page, program) {
                if words == ["--help"] {
                    continue;
                }
                seen += 1;
                let line = std::iter::once("canary-demo run".to_owned()).chain(words.iter().cloned());
                assert!(Demo::try_parse_from(line).is_ok(), "{place}: {}", words.join(" "));
            }
        }
    }
    assert!(seen > 0, "a page says how to choose a scenario");
}

#[test]
fn the_help_of_xtask_run_is_that_of_the_demo() {
    let help = Demo::command().term_width(100).render_long_help().to_string();
    let options = help.split_once("Options:\n").expect("a list of options").1;
    let options: String = options.lines().map(|l| format!("{}\n", l.trim_end())).collect();
    let text = format!("Options of the demo:\n{options}");
    let path = markdown::repository().join("demo/options.txt");
    if std::env::var_os("CANARY_REWRITE_DOCS").is_some() {
        fs::write(path, text).expect("rewrite the list");
        return;
    }
    let fresh = fs::read_to_string(path).is_ok_and(|told| told == text);
    assert!(
        fresh,
        "demo/options.txt is behind the code: run\n  CANARY_REWRITE_DOCS=1 cargo test -p canary-demo --test docs\n{text}"
    );
}
