//! The pause file on real cgroups: while it exists nothing is done, and the journal says which gate held it back.

use canary_e2e::{guarded::Guarded, kernel_available, program::program};
use canary_user::guard::Stage::*;

#[test]
fn a_pause_file_holds_the_action_back_until_it_is_removed() -> anyhow::Result<()> {
    if !kernel_available("a_pause_file_holds_the_action_back_until_it_is_removed") {
        return Ok(());
    }
    let mut guarded = Guarded::new(env!("CARGO_BIN_EXE_victim"), "end")?;
    let file = guarded.file("pause");
    let verb = |verb: &str| {
        anyhow::Ok(
            std::process::Command::new(program("canary")?).arg(verb).arg("--pause-file").arg(&file).output()?.status,
        )
    };
    assert!(verb("pause")?.success());
    let life = guarded.start()?;
    guarded.crash()?;
    life.condemns_again(15)?;
    assert_eq!(guarded.stages(), [[Blocked]], "told once");
    let decision = guarded.history().remove(0).decision;
    assert_eq!(decision.blocked_by().map(|gate| &*gate.gate), Some("pause"), "{:?}", decision.gates);
    assert_eq!(guarded.terms(), 0);
    assert!(guarded.lives()?);

    assert!(verb("resume")?.success());
    guarded.until(Verified)?;
    assert_eq!(guarded.stages(), [vec![Blocked], vec![Planned, Applying, Applied, Verified]]);
    assert_eq!(guarded.terms(), 1);
    Ok(())
}
