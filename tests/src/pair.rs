//! Two tracked cgroups that talk to each other.

use std::net::{SocketAddr, TcpListener, TcpStream};

use canary_user::{
    targets::{Role, Target},
    telemetry::{Options, Sample, Sensor},
};

use crate::Sandbox;

/// Who connects, and who listens.
pub struct Pair {
    pub sandbox: Sandbox,
    sensor: Sensor,
    pub client: Target,
    pub server: Target,
}

impl Pair {
    /// # Errors
    /// Where the kernel programs cannot be loaded, or cgroups cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let sandbox = Sandbox::new()?;
        let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
        let client = sandbox.target(&sandbox.cgroup("client")?, Role::Canary)?;
        let server = sandbox.target(&sandbox.cgroup("server")?, Role::Stable)?;
        sensor.follow(&[client.clone(), server.clone()]);
        sensor.tick();
        Ok(Self { sandbox, sensor, client, server })
    }

    /// A listener that is the server's.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn listen(&self) -> anyhow::Result<TcpListener> {
        self.sandbox.listen(&self.server.cgroup)
    }

    /// A connection of the client's; within, what the kernel answers to it.
    ///
    /// # Errors
    /// Where no thread gets into the client's cgroup.
    pub fn connect(&self, to: SocketAddr) -> anyhow::Result<std::io::Result<TcpStream>> {
        self.sandbox.inside(&self.client.cgroup, || TcpStream::connect(to))
    }

    /// What was counted since the last call: of the client and of the server.
    pub fn samples(&mut self) -> (Sample, Sample) {
        let mut samples = self.sensor.tick().samples;
        let mut of = |target: &Target| {
            let at = samples.iter().position(|s| s.target == *target).expect("both are tracked");
            samples.remove(at)
        };
        (of(&self.client), of(&self.server))
    }
}
