//! The API of a running guard, held against its own OpenAPI document by schemathesis.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, TOKEN},
    kernel_available,
    service::{Service, Traffic},
};

const TEST: &str = "a_running_guard_answers_as_its_document_says";

#[test]
fn a_running_guard_answers_as_its_document_says() -> anyhow::Result<()> {
    if !kernel_available(TEST) {
        return Ok(());
    }
    let tool = match schemathesis() {
        Ok(tool) => tool,
        Err(why) => {
            println!("SKIP {TEST}: {why}");
            return Ok(());
        }
    };
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let services = ["stable-0", "stable-1", "canary-0"].map(service).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let _traffic = Traffic::start(&services.iter().map(|s| s.address).collect::<Vec<_>>())?;
    let mut guard = Guard::start(&Configuration::shop_with_token(&sandbox)?)?;
    guard.until("both are measured", |w| w["indicators"]["turnaround_mean"]["canary"].is_number())?;

    let document = format!("http://{}/api/v1/openapi.json", guard.pages.0);
    // The stream of events never ends: there is no answer to hold against the document.
    let output = Command::new(&tool)
        .args(["run", &document, "--exclude-path", "/api/v1/events", "--max-examples", "20", "--no-color"])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .current_dir(guard.scratch())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(guard.stop()?.success());
    Ok(())
}

/// The program, installed by pip into a place of its own where it is not there yet.
fn schemathesis() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.canary/schemathesis");
    let tool = place.join("bin/schemathesis");
    if tool.exists() {
        return Ok(tool);
    }
    let run = |program: &Path, arguments: &[&str]| -> Result<(), String> {
        let output =
            Command::new(program).args(arguments).output().map_err(|e| format!("{}: {e}", program.display()))?;
        let last = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{}: {last}", program.display())) }
    };
    let venv = place.display().to_string();
    run(Path::new("python3"), &["-m", "venv", &venv]).map_err(|why| format!("no Python environment: {why}"))?;
    run(&place.join("bin/pip"), &["install", "--quiet", "schemathesis==4.*"])
        .map_err(|why| format!("pip cannot install schemathesis: {why}"))?;
    Ok(tool)
}
