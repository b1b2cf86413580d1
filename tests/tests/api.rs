//! The API of a running guard, held against its own OpenAPI document by schemathesis.

use std::process::Command;

use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, TOKEN},
    kernel_available,
    service::{Service, Traffic},
};

#[path = "../../xtask/tests/venv/mod.rs"]
mod venv;

const TEST: &str = "a_running_guard_answers_as_its_document_says";

#[test]
fn a_running_guard_answers_as_its_document_says() -> anyhow::Result<()> {
    if !kernel_available(TEST) {
        return Ok(());
    }
    let tool = match venv::program("schemathesis", "schemathesis==4.*") {
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
