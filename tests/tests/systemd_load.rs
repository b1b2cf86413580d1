//! `canary run` on a real systemd, with requests on two versions of a real service: the canary comes to cost more, and is
//! taken away while the service goes on.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;
use canary_demo::{
    fleet::Instance,
    load::{self, Load, Phase},
};
use canary_e2e::{
    guard::{Configuration, Guard},
    machine::Machine,
    program::program,
    wait_until,
};
use canary_user::{guard::Stage, targets::Role};
use tokio::sync::watch;

/// Some hundred windows have to pass, and the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(300);
const RATE: f64 = 100.0;
/// Instance "v1-8001" listens on port 8001 of the machine, and takes orders from a pipe.
const SERVICE: &str = "\
[Service]
ExecStartPre=/bin/sh -c 'mkdir -p /run/shop/%i; [ -p /run/shop/%i/orders ] || mkfifo /run/shop/%i/orders'
ExecStart=/bin/sh -c 'exec /run/bin/canary-demo serve --listen 127.0.0.1:$${0##*-} <>/run/shop/%i/orders' %i
";
/// Asks whoever spreads the requests, and is done when no more go to the instance.
const AWAY: &str = "\
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'touch /run/shop/%i/away; until [ -e /run/shop/%i/is-away ]; do sleep 0.05; done'
";
const CANARY: &str = "shop@v2-8003.service";

struct Shop {
    machine: Machine,
    configuration: Configuration,
    guard: Guard,
    load: Load,
    instances: watch::Sender<Vec<Instance>>,
}

impl Shop {
    fn open(test: &str, mode: &str) -> anyhow::Result<Option<Self>> {
        let Some(machine) = Machine::boot(test)? else { return Ok(None) };
        machine.place(&program("canary-demo")?)?;
        machine.units(&[("shop@.service", SERVICE), ("away@.service", AWAY)])?;
        machine.systemctl(&["start", "shop@v1-8001.service", "shop@v1-8002.service", CANARY])?;
        let configuration = Configuration::new(&format!(
            "systemd_bus = \"{}\"\n[judge]\nbaseline_windows = 100\nwarmup_windows = 20\n\
             [[deployment]]\nname = \"shop\"\nmode = \"{mode}\"\norchestrator = \"systemd\"\ndrain_unit = \"away@%i.service\"\n\
             stable = {{ systemd = \"shop@v1-*.service\" }}\ncanary = {{ systemd = \"shop@v2-*.service\" }}\n",
            machine.bus()
        ))?;
        let instance = |port: u16, role| Instance {
            name: format!("shop-{port}").into(),
            role,
            address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            routed: true,
            retired: false,
            starts: 1,
            ends: Default::default(),
        };
        let all = vec![instance(8001, Role::Stable), instance(8002, Role::Stable), instance(8003, Role::Canary)];
        let addresses: Vec<SocketAddr> = all.iter().filter_map(|i| i.address).collect();
        let instances = watch::Sender::new(all);
        let watched = instances.subscribe();
        let load = machine.in_its_network(move || {
            wait_until("every instance listens", PATIENCE, || addresses.iter().all(|a| TcpStream::connect(a).is_ok()))?;
            Load::start(RATE, watched)
        })?;
        let guard = Guard::start(&configuration)?;
        Ok(Some(Self { machine, configuration, guard, load, instances }))
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.machine.run_dir().join("shop/v2-8003").join(name)
    }

    fn route_away(&self) {
        self.instances.send_modify(|all| {
            for instance in all.iter_mut().filter(|i| i.role == Role::Canary) {
                instance.routed = false;
            }
        });
    }

    fn served(&self, role: Role, phase: Phase) -> u64 {
        load::sum(&self.load.totals(), role, Some(phase)).served
    }

    /// Requests until the judge has seen enough, and then twice the CPU for each of the canary's.
    fn regress(&mut self) -> anyhow::Result<()> {
        self.guard.until("the canary is judged", |window| window["verdict"] == "inconclusive")?;
        self.load.onset();
        fs::write(self.file("orders"), "{\"fault\":\"cpu\",\"severity\":2.0}\n").context("tell the canary its fault")
    }
}

#[test]
fn a_canary_that_costs_more_is_drained_without_a_failed_request() -> anyhow::Result<()> {
    let test = "a_canary_that_costs_more_is_drained_without_a_failed_request";
    let Some(mut shop) = Shop::open(test, "drain")? else { return Ok(()) };
    shop.regress()?;
    wait_until("the drain unit", PATIENCE, || shop.file("away").exists()).with_context(|| shop.guard.said())?;
    shop.route_away();
    // What was on its way is answered.
    let before = shop.served(Role::Stable, Phase::AfterDrain);
    let moved = || shop.served(Role::Stable, Phase::AfterDrain) > before + 200;
    wait_until("stable serves the canary's share", PATIENCE, moved)?;
    fs::write(shop.file("is-away"), "")?;
    shop.configuration.until(Stage::Verified, "", PATIENCE).with_context(|| shop.guard.said())?;
    assert_eq!(shop.machine.property(CANARY, "ActiveState")?, "inactive");
    assert_eq!(shop.machine.property("away@v2-8003.service", "Result")?, "success");
    let totals = shop.load.stop()?;
    for role in [Role::Stable, Role::Canary] {
        assert_eq!(load::sum(&totals, role, None).failed, 0, "{role}");
    }
    Ok(())
}

#[test]
fn a_canary_that_costs_more_is_rolled_back_and_stable_serves_on() -> anyhow::Result<()> {
    let test = "a_canary_that_costs_more_is_rolled_back_and_stable_serves_on";
    let Some(mut shop) = Shop::open(test, "rollback")? else { return Ok(()) };
    shop.regress()?;
    // As every balancer does: an instance that does not answer gets no more.
    let canary = shop.instances.borrow()[2].address.context("it has an address")?;
    shop.machine.in_its_network(move || {
        wait_until("the canary does not listen any more", PATIENCE, || TcpStream::connect(canary).is_err())
    })?;
    shop.route_away();
    shop.configuration.until(Stage::Verified, "", PATIENCE).with_context(|| shop.guard.said())?;
    assert_eq!(shop.machine.property(CANARY, "ActiveState")?, "inactive");
    for stable in ["shop@v1-8001.service", "shop@v1-8002.service"] {
        assert_eq!(shop.machine.property(stable, "ActiveState")?, "active");
        assert_eq!(shop.machine.property(stable, "NRestarts")?, "0");
    }
    let before = shop.served(Role::Stable, Phase::AfterDrain);
    let goes_on = || shop.served(Role::Stable, Phase::AfterDrain) > before + 200;
    wait_until("stable serves on", PATIENCE, goes_on)?;
    assert_eq!(load::sum(&shop.load.stop()?, Role::Stable, None).failed, 0);
    Ok(())
}
