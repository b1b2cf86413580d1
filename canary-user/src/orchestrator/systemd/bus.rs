//! systemd's own interface on D-Bus, as much of it as is needed: `org.freedesktop.systemd1(5)`.

use std::{collections::HashMap, fmt, fs, time::Duration};

use anyhow::Context as _;
use zbus::{MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Variant, connection, message};

/// How long systemd may take to answer one call. A job goes on after its call was answered.
const ANSWER: Duration = Duration::from_secs(10);
/// Value of a property that is not set, or of a time without end.
pub const UNSET: u64 = u64::MAX;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<Listed>>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reload(&self) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn set_unit_properties(&self, name: &str, runtime: bool, properties: &[Property<'_>]) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[Property<'_>],
        aux: &[(&str, Vec<Property<'_>>)],
    ) -> zbus::Result<OwnedObjectPath>;
}

/// Arguments of the signal: id of the job, its path, the unit, how it ended.
pub type JobRemoved = (u32, OwnedObjectPath, String, String);

pub type Property<'a> = (&'a str, Variant<'a>);

/// A unit of `ListUnitsByPatterns`: name, description, load, active and sub state, what it follows, its path, and its job.
pub type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A connection to one systemd.
pub struct Session {
    pub connection: zbus::Connection,
    pub manager: ManagerProxy<'static>,
}

impl Session {
    /// # Errors
    /// Where nobody listens at the address, or what does is not systemd.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let open = async {
            let connection = connection::Builder::address(address).method_timeout(ANSWER).build().await?;
            let manager =
                ManagerProxy::builder(&connection).cache_properties(zbus::proxy::CacheProperties::No).build().await?;
            // Without it systemd emits no signals to this connection.
            manager.subscribe().await?;
            zbus::Result::Ok(Self { connection, manager })
        };
        let opened = tokio::time::timeout(ANSWER, open).await.context("no answer within 10s").and_then(|r| Ok(r?));
        opened.with_context(|| format!("reach systemd at {address}: is it there, and may the guard use its bus?"))
    }

    /// Where systemd's own root cgroup is, seen from here: "" for the machine's, "/lxc/a" where it runs in a cgroup
    /// namespace. D-Bus tells paths from there.
    ///
    /// The socket of the bus was opened by systemd itself, so that the peer's pid is that of systemd, in this process's own
    /// numbers (`SO_PEERCRED`, unix(7)). Where it cannot be seen from here the root is taken to be the same.
    pub async fn cgroup_prefix(&self) -> String {
        let peer = self.connection.peer_creds().await.ok().and_then(|creds| creds.process_id());
        let text = peer.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
        let path = text.as_deref().and_then(|text| text.lines().find_map(|l| l.strip_prefix("0::")));
        path.and_then(|p| p.strip_suffix("/init.scope")).unwrap_or_default().to_owned()
    }

    /// Everything that systemd says about a unit. Loads it where it is not; that starts nothing.
    pub async fn unit(&self, name: &str) -> anyhow::Result<Unit> {
        let read = async {
            let path = self.manager.load_unit(name).await?;
            let mut properties = self.properties(&path, "org.freedesktop.systemd1.Unit").await?;
            let kind = match name.rsplit('.').next() {
                Some("service") => "Service",
                Some("socket") => "Socket",
                Some("timer") => "Timer",
                _ => "",
            };
            if !kind.is_empty() {
                properties.extend(self.properties(&path, &format!("org.freedesktop.systemd1.{kind}")).await?);
            }
            anyhow::Ok(Unit { name: name.to_owned(), properties })
        };
        read.await.with_context(|| format!("ask systemd about {name}"))
    }

    /// [`JobRemoved`] for the jobs of one unit: of all units' the queue could fill up, and then the connection stands still.
    pub async fn jobs_removed(&self, unit: &str) -> anyhow::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .interface(MANAGER)
            .member("JobRemoved")
            .arg(2, unit)
            .build()
            .with_context(|| format!("listen for the jobs of {unit}"))?;
        Ok(MessageStream::for_match_rule(rule, &self.connection, None).await?)
    }

    /// Every signal about any unit. Has to be read all the time.
    pub async fn unit_signals(&self) -> anyhow::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .path_namespace("/org/freedesktop/systemd1/unit")
            .build()
            .context("listen for signals of units")?;
        Ok(MessageStream::for_match_rule(rule, &self.connection, None).await?)
    }

    async fn properties(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> anyhow::Result<HashMap<String, OwnedVariant>> {
        let destination = Some("org.freedesktop.systemd1");
        let of = Some("org.freedesktop.DBus.Properties");
        let answer = self.connection.call_method(destination, path, of, "GetAll", &interface).await?;
        Ok(answer.body().deserialize()?)
    }
}

/// A unit's properties at one moment.
pub struct Unit {
    pub name: String,
    properties: HashMap<String, OwnedVariant>,
}

impl Unit {
    pub fn text(&self, key: &str) -> &str {
        self.properties.get(key).and_then(|v| v.try_into().ok()).unwrap_or_default()
    }

    pub fn flag(&self, key: &str) -> bool {
        self.properties.get(key).and_then(|v| v.try_into().ok()).unwrap_or_default()
    }

    /// A number or a time in microseconds; `None` where this systemd does not have it.
    pub fn number(&self, key: &str) -> Option<u64> {
        let value = self.properties.get(key)?;
        value.try_into().ok().or_else(|| u32::try_from(value).ok().map(u64::from))
    }

    /// A time; `None` where it is not limited.
    pub fn time(&self, key: &str) -> Option<Duration> {
        self.number(key).filter(|usec| *usec != UNSET).map(Duration::from_micros)
    }

    pub fn names(&self, key: &str) -> Vec<String> {
        self.properties.get(key).and_then(|v| v.try_clone().ok()?.try_into().ok()).unwrap_or_default()
    }

    /// What tells this run from every other; empty where the unit never ran.
    pub fn invocation(&self) -> String {
        let bytes: Vec<u8> =
            self.properties.get("InvocationID").and_then(|v| v.try_clone().ok()?.try_into().ok()).unwrap_or_default();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The queued or running job: its number.
    pub fn job(&self) -> Option<u32> {
        let job: (u32, OwnedObjectPath) = self.properties.get("Job")?.try_clone().ok()?.try_into().ok()?;
        (job.0 != 0).then_some(job.0)
    }

    pub fn is_active(&self) -> bool {
        matches!(self.text("ActiveState"), "active" | "reloading")
    }

    /// Whether it does not run, and nothing brings it back by itself.
    pub fn is_down(&self) -> bool {
        matches!(self.text("ActiveState"), "inactive" | "failed")
    }
}

/// "checkout@v2.service is active (running)".
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} ({})", self.name, self.text("ActiveState"), self.text("SubState"))
    }
}
