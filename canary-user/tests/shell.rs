//! Completions and manual pages: made by the binary, complete, and taken by the programs that read them.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use canary_user::cli::Cli;
use clap::CommandFactory as _;

fn canary(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_canary")).args(args).output().expect("the binary starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn verbs() -> Vec<String> {
    let verbs: Vec<_> = Cli::command().get_subcommands().map(|v| v.get_name().to_owned()).collect();
    assert!(verbs.len() > 15, "{verbs:?}");
    verbs
}

/// Whether `program` runs here; prints why the test does not otherwise.
fn has(test: &str, program: &str) -> bool {
    let started = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let runs = started.is_ok_and(|s| s.success());
    if !runs {
        println!("SKIP {test}: there is no {program} here");
    }
    runs
}

/// Pages by name, in a directory that the binary makes.
fn pages(dir: &Path) -> Vec<(String, String)> {
    let dir = dir.join("share/man/man1");
    canary(&["man", &dir.display().to_string()]);
    let entries = fs::read_dir(&dir).expect("the directory was made").map(|e| e.expect("an entry").path());
    let page = |path: &Path| fs::read_to_string(path).expect("a page");
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), page(&path))).collect()
}

#[test]
fn the_completions_of_each_shell_name_each_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&canary(&["completions", shell]).stdout);
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell}: no {verb}");
        }
    }
}

#[test]
fn bash_completes_a_verb_and_an_option() {
    let test = "bash_completes_a_verb_and_an_option";
    if !has(test, "bash") {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let script = dir.path().join("canary");
    fs::write(&script, canary(&["completions", "bash"]).stdout).expect("write");
    let complete = |line: &str| {
        // As readline does: the words of the line, the last one under the cursor.
        let asked = format!(
            "source '{}'; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _canary canary \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &asked]).output().expect("bash starts");
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("canary roll"), ["rollback"]);
    assert_eq!(complete("canary rollback --rea"), ["--reason"]);
    assert_eq!(complete("canary hol"), ["hold"]);
}

#[test]
fn the_manual_has_a_page_for_each_verb_with_each_option() {
    let dir = tempfile::tempdir().expect("tempdir");
    let pages = pages(dir.path());
    let names: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    let wanted: BTreeSet<String> =
        verbs().iter().map(|v| format!("canary-{v}.1")).chain(["canary.1".to_owned()]).collect();
    assert_eq!(names, wanted.iter().map(String::as_str).collect());
    // Roff writes a dash that is one as `\-`.
    let page = |name: &str| pages.iter().find(|(n, _)| n == name).expect("just seen").1.replace("\\-", "-");
    let command = Cli::command();
    for verb in command.get_subcommands() {
        assert!(page("canary.1").contains(&format!("canary-{}(1)", verb.get_name())), "{}", verb.get_name());
        let page = page(&format!("canary-{}.1", verb.get_name()));
        for option in verb.get_arguments().filter_map(|a| a.get_long()) {
            assert!(page.contains(&format!("--{option}")), "canary-{}.1 has no --{option}", verb.get_name());
        }
        assert!(page.contains("Examples:"), "canary-{}.1 has no examples", verb.get_name());
    }
}

#[test]
fn man_has_nothing_to_warn_of() {
    let test = "man_has_nothing_to_warn_of";
    if !has(test, "man") || !has(test, "groff") {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, page) in pages(dir.path()) {
        let file = dir.path().join(&name);
        fs::write(&file, page).expect("write");
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&file)
            .env("LC_ALL", "C.UTF-8")
            .env("MANROFFSEQ", "")
            // Long commands do not break, and a line that sticks out is no mistake.
            .env("MANWIDTH", "200")
            .output()
            .expect("man starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", text(&output.stderr));
        assert!(output.stdout.len() > 1000, "{name}: {} bytes", output.stdout.len());
    }
}
