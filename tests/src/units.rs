//! Two versions of a service as units of a real systemd, and the orchestrator "systemd" on them.

use anyhow::Context as _;
use canary_user::{
    config::Config,
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator as _, Plan, State, systemd::Systemd},
    targets::{Identity, Role, Target, cgroup::Root},
};
use tokio::runtime::Runtime;

use crate::{decided, machine::Machine};

pub const STABLE: &str = "shop@v1.service";
pub const CANARY: &str = "shop@v2.service";
/// Both are made from it, where a test has no unit file of its own for one of them.
pub const TEMPLATE: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
/// systemd forgets when a unit ended, unless another one speaks of it.
const MEMORY: &str =
    "[Unit]\nAfter=shop@v1.service shop@v2.service shop@v2.socket\n[Service]\nExecStart=/bin/sleep infinity\n";

pub struct Bench {
    pub machine: Machine,
    pub systemd: Systemd,
    pub root: Root,
    runtime: Runtime,
}

impl Bench {
    /// Both versions run; `units` replace or add unit files, `keys` are lines of the deployment.
    pub fn new(test: &str, units: &[(&str, &str)], keys: &str) -> anyhow::Result<Option<Self>> {
        let Some(machine) = Machine::boot(test)? else { return Ok(None) };
        machine.units(&[("shop@.service", TEMPLATE), ("memory.service", MEMORY)])?;
        machine.units(units)?;
        machine.systemctl(&["start", STABLE, CANARY])?;
        machine.systemctl(&["start", "memory.service"])?;
        let text = format!(
            "[[deployment]]\nname = \"shop\"\nmode = \"rollback\"\norchestrator = \"systemd\"\nsettle = \"500ms\"\n{keys}\n\
             stable = {{ systemd = \"{STABLE}\" }}\ncanary = {{ systemd = \"{CANARY}\" }}\n"
        );
        let config = Config::parse(&text, "the test")?;
        let root = Root::find()?;
        let systemd = Systemd::new(&machine.bus(), root.clone(), &config.deployments[0]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Some(Self { machine, systemd, root, runtime }))
    }

    /// On the units as they run now; one that is down was there before and is none of the targets.
    pub fn decision(&self, action: Action) -> anyhow::Result<Decision> {
        let targets = |unit: &str, role| -> anyhow::Result<Vec<Target>> {
            let inside = self.machine.property(unit, "ControlGroup")?;
            if inside.is_empty() {
                return Ok(Vec::new());
            }
            let cgroup = self.machine.cgroup(&inside);
            Ok(vec![Target {
                deployment: "shop".into(),
                role,
                version: role.name().into(),
                incarnation: self.root.id(&cgroup).with_context(|| format!("{cgroup} is there"))?,
                cgroup: cgroup.into(),
                identity: Some(Identity {
                    name: unit.into(),
                    run: self.machine.property(unit, "InvocationID")?.into(),
                    restarts: self.machine.property(unit, "NRestarts")?.parse().ok(),
                }),
            }])
        };
        Ok(decided::decision(action, targets(CANARY, Role::Canary)?, targets(STABLE, Role::Stable)?))
    }

    pub fn describe(&self, decision: &Decision) -> Result<Plan, Error> {
        self.runtime.block_on(self.systemd.describe(decision))
    }

    pub fn apply(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        self.runtime.block_on(self.systemd.apply(decision, plan))
    }

    pub fn state(&self, decision: &Decision) -> anyhow::Result<State> {
        Ok(self.runtime.block_on(self.systemd.state(decision))?.state)
    }

    pub fn undo(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        self.runtime.block_on(self.systemd.undo(decision, plan))
    }

    pub fn is(&self, unit: &str, state: &str) -> anyhow::Result<()> {
        let found = self.machine.property(unit, "ActiveState")?;
        anyhow::ensure!(found == state, "{unit} is {found} and not {state}");
        Ok(())
    }

    /// When it last became active or inactive, in microseconds since the start of this machine.
    pub fn moment(&self, unit: &str, state: &str) -> anyhow::Result<u64> {
        let moment = self.machine.property(unit, &format!("{state}EnterTimestampMonotonic"))?.parse()?;
        anyhow::ensure!(moment > 0, "systemd has forgotten {unit}");
        Ok(moment)
    }
}
