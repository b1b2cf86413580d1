//! The binary's manners in a terminal and on a pipe: help that fits 80 columns, colours only where they are wanted.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use canary_user::cli::Cli;
use clap::CommandFactory as _;

/// What lines of our own may have in help: it is shown on 80 columns, and nothing of ours is to be broken there.
const WIDTH: usize = 78;
/// How a terminal is told of a colour.
const ESCAPE: &str = "\u{1b}[";

fn canary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary"));
    command.env_remove("NO_COLOR").env_remove("CANARY_LOG").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

fn all_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn notes_and_examples_of_each_verb_fit_into_78_columns() {
    let command = Cli::command();
    for one in command.get_subcommands().chain([&command]) {
        let name = one.get_name();
        let notes = one.get_after_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
        assert!(notes.contains("Examples:"), "{name}");
        for line in notes.lines() {
            assert!(line.chars().count() <= WIDTH, "{name}: {} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn help_is_no_wider_than_80_columns() {
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(|verb| verb.get_name()).collect();
    for words in verbs.iter().map(|verb| vec![*verb, "--help"]).chain([vec!["--help"]]) {
        let output = canary().args(&words).env("COLUMNS", "80").output().expect("the binary starts");
        assert!(output.status.success(), "{words:?}");
        for line in all_text(&output).lines() {
            assert!(line.chars().count() <= 80, "{words:?}: {} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn output_is_how_it_is_printed_in_every_verb_and_json_is_one_way() {
    let command = Cli::command();
    let mut seen = 0;
    for verb in command.get_subcommands() {
        let name = verb.get_name();
        let alike = verb.get_arguments().find(|option| matches!(option.get_long(), Some("format" | "out")));
        assert!(alike.is_none(), "{name}: {alike:?} looks like --output, or means it");
        for option in verb.get_arguments().filter(|option| option.get_long() == Some("output")) {
            seen += 1;
            let ways = option.get_possible_values();
            assert!(ways.iter().any(|way| way.get_name() == "json"), "{name} --output: {ways:?}");
        }
    }
    assert!(seen > 10, "only {seen} verbs have --output");
}

/// What draws a plot, what logs a line and what is a wrong use; each has colours on a terminal.
fn colourful(dir: &Path) -> [String; 3] {
    let table = dir.join("table.csv");
    let rows: String = (0..60).map(|t| format!("{t},stable,a,1{t}\n{t},stable,b,1{t}\n{t},canary,c,1{t}\n")).collect();
    std::fs::write(&table, format!("t,role,target,latency\n{rows}")).expect("write");
    [
        format!("replay {} --plot always", table.display()),
        // The line is of the library that connects: nothing else is logged of a command that finds nobody.
        "status --socket /no-such-directory/canary.sock --log trace".to_owned(),
        "no-such-verb".to_owned(),
    ]
}

/// What is shown on a terminal, which the program `script` makes.
fn on_a_terminal(arguments: &str, no_color: Option<&str>) -> String {
    let mut script = Command::new("script");
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_canary"));
    script.args(["--quiet", "--command", &command, "/dev/null"]).stdin(Stdio::null());
    for name in ["NO_COLOR", "CANARY_LOG", "CLICOLOR_FORCE", "CLICOLOR"] {
        script.env_remove(name);
    }
    script.env("TERM", "xterm-256color");
    if let Some(value) = no_color {
        script.env("NO_COLOR", value);
    }
    all_text(&script.output().expect("script starts"))
}

#[test]
fn on_a_terminal_there_are_colours_unless_no_color_is_set() {
    let test = "on_a_terminal_there_are_colours_unless_no_color_is_set";
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("SKIP {test}: there is no script here (apt-get install bsdutils)");
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    for arguments in colourful(dir.path()) {
        let shown = on_a_terminal(&arguments, None);
        assert!(shown.contains(ESCAPE), "{arguments}: no colours on a terminal: {shown}");
        let plain = on_a_terminal(&arguments, Some("1"));
        assert!(!plain.contains(ESCAPE), "{arguments}: colours with NO_COLOR: {plain:?}");
        // What is set to nothing is not set (no-color.org).
        assert!(on_a_terminal(&arguments, Some("")).contains(ESCAPE), "{arguments}: NO_COLOR is empty");
    }
}

#[test]
fn a_pipe_gets_no_colours() {
    let dir = tempfile::tempdir().expect("tempdir");
    for arguments in colourful(dir.path()) {
        let output = canary().args(arguments.split(' ')).output().expect("the binary starts");
        let text = all_text(&output);
        assert!(!text.is_empty() && !text.contains(ESCAPE), "{arguments}: {text:?}");
    }
}
