//! Every quoted `canary …` is a command line that the program takes, and every option says its default.

use canary_user::cli::Cli;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use crate::markdown::{self, Page};

fn refusal(words: &[String]) -> Option<String> {
    let line = std::iter::once("canary".to_owned()).chain(words.iter().cloned());
    match Cli::try_parse_from(line) {
        Ok(_) => None,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => None,
        // A verb alone names the verb: it is not said to be typed so.
        Err(e) if words.len() == 1 && e.kind() == ErrorKind::MissingRequiredArgument => None,
        Err(e) => Some(e.to_string()),
    }
}

#[test]
fn quoted_commands_are_taken_by_the_program() {
    let mut seen = 0;
    for page in markdown::pages() {
        for (place, words) in markdown::commands(&page, &["canary"]) {
            seen += 1;
            assert_eq!(refusal(&words), None, "{place}: canary {}", words.join(" "));
        }
    }
    assert!(seen > 10, "only {seen} commands were found: does the reader of the pages still work?");
}

#[test]
fn what_the_shipped_files_start_is_taken_by_the_program() {
    let unit = markdown::read("deploy/canary-guard.service");
    let start = unit.lines().find_map(|l| l.strip_prefix("ExecStart=/usr/bin/canary ")).expect("ExecStart");
    let mut lines = vec![start.split_whitespace().map(str::to_owned).collect::<Vec<_>>()];
    for (file, key) in [("deploy/Dockerfile", "CMD "), ("deploy/kubernetes/base/daemonset.yaml", "args: ")] {
        let text = markdown::read(file);
        let list = text.lines().find_map(|l| l.trim().strip_prefix(key)).unwrap_or_else(|| panic!("{file}: {key}"));
        lines.push(serde_json::from_str(list).unwrap_or_else(|e| panic!("{file}: {list}: {e}")));
    }
    for words in lines {
        assert_eq!(refusal(&words), None, "canary {}", words.join(" "));
    }
}

#[test]
fn every_help_has_examples_that_work_and_every_option_says_its_default() {
    let mut cli = Cli::command();
    cli.build();
    let verbs: Vec<_> = cli.get_subcommands().filter(|v| v.get_name() != "help").cloned().collect();
    assert!(verbs.len() >= 8, "{verbs:?}");
    for verb in verbs.into_iter().chain([cli]) {
        let name = verb.get_name().to_owned();
        let after = verb.get_after_help().map(|h| h.to_string()).unwrap_or_default();
        let examples: String =
            after.lines().filter_map(|l| l.strip_prefix("  canary")).map(|l| format!("    canary{l}\n")).collect();
        // The explanation stands behind two spaces at least.
        let examples: String =
            examples.lines().map(|l| format!("    {}\n", l.trim().split("  ").next().unwrap_or(""))).collect();
        let found = markdown::commands(&Page { name: format!("canary {name} --help"), text: examples }, &["canary"]);
        assert!(!found.is_empty(), "canary {name} --help has no example");
        for (place, words) in found {
            assert_eq!(refusal(&words), None, "{place}: canary {}", words.join(" "));
            // Thirteen digits of the time in ms and four of the number, as the guard makes them.
            let is_id = |word: &&String| word.starts_with("shop-") && word.ends_with(char::is_numeric);
            for id in words.iter().filter(is_id) {
                let digits: Vec<usize> = id.split('-').skip(1).map(str::len).collect();
                assert_eq!(digits, [13, 4], "{place}: {id} is no id of a decision");
            }
        }
        for option in verb.get_arguments().filter(|a| a.get_action().takes_values() && !a.is_required_set()) {
            let help = option.get_help().map(|h| h.to_string()).unwrap_or_default();
            let has_default = !option.get_default_values().is_empty() || help.contains("[default: ");
            assert!(
                has_default && help.len() > 10,
                "canary {name} --help: {} says no default: {help}",
                option.get_id()
            );
        }
    }
}
