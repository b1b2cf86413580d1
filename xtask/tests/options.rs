//! What every verb takes.

use std::process::Command;

/// Every verb sets up first: each has to know where a compiler may come from, before it fetches one from elsewhere.
#[test]
fn every_verb_that_sets_up_reads_where_a_compiler_may_come_from() {
    for verb in [&["setup"][..], &["lint"], &["test"], &["run"], &["dist"], &["fuzz"], &["bench", "judge", "--stdin"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(verb)
            .env("CANARY_SETUP_FROM", "nowhere")
            .output()
            .expect("start xtask");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {said}");
        assert!(said.contains("nowhere") && said.contains("debian"), "{verb:?}: {said}");
    }
}

/// Of fewer, the verdict on a figure would be chance.
#[test]
fn the_cost_of_the_sensor_is_not_judged_by_fewer_than_five_rounds() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["bench", "overhead", "--rounds", "4"])
        .output()
        .expect("start xtask");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--rounds") && said.contains("5.."), "{said}");
}
