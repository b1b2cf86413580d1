//! A journal that cannot be written ends the guard at once, with its path and what to do.

use std::{fs, path::Path};

use canary_e2e::{
    Sandbox,
    guard::{canary, shop},
    kernel_available,
};

/// What `canary run` says with its journal at `journal`, started through `wrapper`. It has to fail.
fn refused(wrapper: &[&str], journal: &Path) -> anyhow::Result<String> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("canary.toml");
    fs::write(
        &file,
        format!("journal = {journal:?}\napi.socket = {:?}\n{}", dir.path().join("canary.sock"), shop(&Sandbox::new()?)),
    )?;
    let output = canary(wrapper).args(["run", "--config", &file.display().to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let error = said.lines().find(|l| l.starts_with("canary: ")).unwrap_or_default().to_owned();
    assert!(error.contains(&journal.display().to_string()), "the path is named: {said}");
    Ok(error)
}

#[test]
fn a_directory_that_does_not_exist() -> anyhow::Result<()> {
    if !kernel_available("a_directory_that_does_not_exist") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("missing");
    let error = refused(&[], &missing.join("journal.db"))?;
    assert!(error.contains("there is no directory") && error.contains("create it"), "{error}");
    assert!(!missing.exists(), "a mistyped path makes no directory");
    Ok(())
}

#[test]
fn a_file_where_a_directory_is_expected() -> anyhow::Result<()> {
    if !kernel_available("a_file_where_a_directory_is_expected") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("state");
    fs::write(&file, "mine")?;
    let error = refused(&[], &file.join("journal.db"))?;
    assert!(error.contains("is a file") && error.contains("set 'journal' to another place"), "{error}");
    assert_eq!(fs::read_to_string(&file)?, "mine");
    Ok(())
}

#[test]
fn a_directory_where_a_file_is_expected() -> anyhow::Result<()> {
    if !kernel_available("a_directory_where_a_file_is_expected") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let error = refused(&[], dir.path())?;
    assert!(error.contains("is a directory: set 'journal' to a file in it"), "{error}");
    Ok(())
}

#[test]
fn a_file_system_that_is_read_only() -> anyhow::Result<()> {
    if !kernel_available("a_file_system_that_is_read_only") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().display();
    // In a mount namespace of its own; $0 is the shell's name, so that "$@" is the guard with its arguments.
    let script = format!("mount --bind {path} {path} && mount -o remount,bind,ro {path} && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let error = refused(&wrapper, &dir.path().join("journal.db"))?;
    assert!(error.contains("cannot be written") && error.contains("set 'journal' to another place"), "{error}");
    // The same where a journal is there already.
    canary_user::journal::Journal::open(&dir.path().join("journal.db"))?;
    let error = refused(&wrapper, &dir.path().join("journal.db"))?;
    assert!(error.contains("cannot be written"), "{error}");
    Ok(())
}
