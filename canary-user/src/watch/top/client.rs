//! What `canary top` asks of the guard's API.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Uri, body::Bytes, header};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Command;

const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer: an hour of windows in JSON is some megabytes.
const MOST_BYTES: usize = 32 << 20;

/// The guard's address and, where commands are wanted, its token.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    token: Option<String>,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// `address` is ADDRESS:PORT or http://ADDRESS:PORT.
    ///
    /// # Errors
    /// A token that cannot be read.
    pub fn new(address: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let token = match token_file {
            None => None,
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("read the token {}", file.display()))?;
                Some(text.trim().to_owned())
            }
        };
        ensure!(
            !address.starts_with("https://"),
            "{address}: `canary top` speaks http only: use the guard's loopback address"
        );
        let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Ok(Self { address, token, http: Http::builder(TokioExecutor::new()).build_http() })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// # Errors
    /// Where nobody answers, or not as expected.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (status, body) = self.send(Method::GET, path, "").await?;
        if status != 200 {
            bail!("{}: {}", self.address, words(status, &body));
        }
        serde_json::from_slice(&body).with_context(|| format!("{}{path} is no guard's answer", self.address))
    }

    /// What the guard says of it.
    pub(super) async fn command(&self, command: &Command) -> anyhow::Result<String> {
        let (path, body) = match command {
            Command::Pause => ("/api/v1/pause".to_owned(), "{\"reason\":\"from canary top\"}"),
            Command::Resume => ("/api/v1/resume".to_owned(), "{}"),
            Command::Approve(id) => (format!("/api/v1/approve/{}", encoded(id)), "{}"),
        };
        let (status, body) = self.send(Method::POST, &path, body).await?;
        Ok(words(status, &body))
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> anyhow::Result<(u16, Bytes)> {
        let uri: Uri = format!("http://{}{path}", self.address)
            .parse()
            .with_context(|| format!("{} is no ADDRESS:PORT", self.address))?;
        let mut request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).context("the token is not one word")?;
        let answer = tokio::time::timeout(PATIENCE, self.http.request(request)).await;
        let answer = answer.with_context(|| format!("no answer from {} within {PATIENCE:?}", self.address))?;
        let answer = answer.with_context(|| format!("{}: is it the configuration's 'listen'?", self.address))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|e| anyhow::anyhow!("read the answer of {}: {e}", self.address))?;
        Ok((status, body.to_bytes()))
    }
}

/// The sentence in an answer.
fn words(status: u16, body: &[u8]) -> String {
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let sentence = said.as_ref().and_then(|v| v["said"].as_str().or(v["error"].as_str()));
    match (sentence, status) {
        (Some(sentence), _) => sentence.to_owned(),
        (None, 404 | 405) => {
            "this guard takes no commands over HTTP: use the verbs of `canary` on its machine".to_owned()
        }
        (None, status) => format!("HTTP status {status}"),
    }
}

/// A name within a path or a query.
pub fn encoded(name: &str) -> String {
    crate::watch::page::encoded(name)
}
