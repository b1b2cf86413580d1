//! The demo's options, as the pages quote them and as `cargo xtask run --help` shows them.

use std::fs;

use canary_demo::{run, scenario::Scenario};
use clap::{CommandFactory as _, Parser, ValueEnum as _};

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

#[test]
fn each_cause_is_pinned_by_a_story_and_made_to_happen_by_a_scenario() {
    let page = markdown::read("docs/judge.md");
    let tests = markdown::read("tests/tests/scenarios.rs");
    let rows = markdown::rows(markdown::section(&page, "## Causes"));
    let mut shown = Vec::new();
    for row in &rows {
        let [_, mechanism, story, scenario] = row.as_slice() else { panic!("a row with other cells: {row:?}") };
        let (stories, names) = (markdown::code(story), markdown::code(scenario));
        let ([story], [name]) = (stories.as_slice(), names.as_slice()) else {
            panic!("{mechanism}: one story and one scenario, not {story} and {scenario}");
        };
        let pinned = markdown::repository().join(format!("canary-user/tests/golden/expected/{story}.txt"));
        assert!(pinned.exists(), "{mechanism}: there is no story {story}");
        let scenario = Scenario::from_str(name, false).unwrap_or_else(|e| panic!("{mechanism}: {name}: {e}"));
        assert!(tests.contains(&format!("Scenario::{scenario:?}")), "{mechanism}: no test runs {name}");
        shown.push(scenario);
    }
    // 'memory' is found by what reading costs, before it stalls.
    let without_a_row = [Scenario::Healthy, Scenario::Memory];
    let missing: Vec<_> = Scenario::value_variants()
        .iter()
        .filter(|scenario| !shown.contains(scenario) && !without_a_row.contains(scenario))
        .collect();
    assert!(missing.is_empty(), "docs/judge.md has no cause for {missing:?}");
}
