//! What all verbs that speak with the running guard share: where it is, and how its answer is printed.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::Output;
use crate::{
    config::SOCKET,
    control::{Done, Reply, Status, client},
    watch::api::NextStep,
};

#[derive(Debug, clap::Args)]
pub struct ToGuard {
    /// The running guard's socket; its configuration has it under [api]
    #[arg(long, value_name = "SOCKET", default_value = SOCKET, env = "CANARY_SOCKET")]
    pub socket: PathBuf,
    /// text: for people; json: one object
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

impl ToGuard {
    /// Sends a command and prints the answer.
    pub fn command(&self, path: &str, body: &Value) -> anyhow::Result<ExitCode> {
        match client::ask(&self.socket, path, Some(body))? {
            Reply::Done(Done { said }) => self.tell(&said),
            Reply::Status(_) => bail!("{} answers a command with a status", self.socket.display()),
        }
    }

    pub fn status(&self) -> anyhow::Result<Status> {
        match client::ask(&self.socket, "/api/v1/status", None)? {
            Reply::Status(status) => Ok(*status),
            Reply::Done(Done { said }) => bail!("{} gives no status but says: {said}", self.socket.display()),
        }
    }

    /// What a person should do about each deployment.
    pub fn next(&self) -> anyhow::Result<Vec<NextStep>> {
        client::ask(&self.socket, "/api/v1/next", None)
    }

    /// Prints what was done.
    pub fn tell(&self, said: &str) -> anyhow::Result<ExitCode> {
        match self.output {
            Output::Text => println!("{said}"),
            Output::Json => {
                println!("{}", serde_json::to_string_pretty(&json!({ "said": said })).context("write JSON")?)
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
