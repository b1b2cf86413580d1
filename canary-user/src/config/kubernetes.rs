//! `[kubernetes]`, pods as targets, and `http_route`: how the API server is reached, and what it is asked about.

use std::{fmt, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};

/// How the API server is reached, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// A kubeconfig file; `None` = the service account of the pod that the guard runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name in Kubernetes; `None` = what the environment's `NODE_NAME` says, or the machine's host name.
    pub node: Option<String>,
    /// Namespace of the Leases by which one of several guards acts; `None` = this guard acts alone.
    pub lease_namespace: Option<String>,
}

impl KubernetesConfig {
    /// The name of this node.
    pub fn node_name(&self) -> String {
        let of_environment = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        // Kubelets write it small (`GetHostname` of k8s.io/component-helpers), as names of nodes have to be.
        let of_machine = || rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        self.node.clone().or_else(of_environment).unwrap_or_else(of_machine)
    }
}

/// Pods of one namespace by their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    pub namespace: String,
    /// As `kubectl get pods --selector` takes it.
    pub selector: String,
    /// The one container of each pod that is the target; `None` = the pod with all of its containers.
    pub container: Option<String>,
    /// The same as it is written in the configuration.
    pub text: String,
}

/// The HTTPRoute that shares the requests out between the versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteConfig {
    pub name: String,
    /// The Service of the canary, as the route's `backendRefs` name it.
    pub canary: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubernetes {
    pub kubeconfig: Option<Spanned<String>>,
    pub node: Option<Spanned<String>>,
    pub lease_namespace: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPods {
    pub namespace: Option<Spanned<String>>,
    pub selector: Option<Spanned<String>>,
    pub container: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttpRoute {
    pub name: Option<Spanned<String>>,
    pub canary: Option<Spanned<String>>,
}

impl Source<'_> {
    pub(super) fn kubernetes(&self, raw: RawKubernetes) -> Result<KubernetesConfig, ConfigError> {
        let name = |key: &str, raw: Option<Spanned<String>>| {
            raw.map(|raw| self.object_name(format!("kubernetes.{key}"), raw)).transpose()
        };
        let file = raw.kubeconfig.map(|file| self.path("kubernetes.kubeconfig", Some(file), ""));
        Ok(KubernetesConfig {
            kubeconfig: file.transpose()?,
            node: name("node", raw.node)?,
            lease_namespace: name("lease_namespace", raw.lease_namespace)?,
        })
    }

    pub(super) fn pods(&self, key: &str, raw: Spanned<RawPods>) -> Result<Pods, ConfigError> {
        let span = raw.span();
        let raw = raw.into_inner();
        let missing = |k: &str, add| self.mistake(span.clone(), format!("{key}.{k}"), Mistake::MissingKey { add });
        let namespace = raw.namespace.ok_or_else(|| missing("namespace", "namespace = \"...\""))?;
        let selector = raw.selector.ok_or_else(|| missing("selector", "selector = \"app=...,track=...\""))?;
        if selector.as_ref().trim().is_empty() {
            let key = format!("{key}.selector");
            return Err(self.mistake(selector.span(), key, Mistake::EmptySelector));
        }
        let namespace = self.object_name(format!("{key}.namespace"), namespace)?;
        let container = raw.container.map(|c| self.object_name(format!("{key}.container"), c)).transpose()?;
        let selector = selector.into_inner().trim().to_owned();
        let quoted = |s: &str| toml::Value::from(s).to_string();
        let of = container.as_ref().map(|c| format!(", container = {}", quoted(c))).unwrap_or_default();
        let text = format!("{{ namespace = {}, selector = {}{of} }}", quoted(&namespace), quoted(&selector));
        Ok(Pods { namespace, selector, container, text })
    }

    pub(super) fn http_route(&self, name: &str, raw: Spanned<RawHttpRoute>) -> Result<HttpRouteConfig, ConfigError> {
        let span = raw.span();
        let raw = raw.into_inner();
        let key = |k: &str| format!("{name}.http_route.{k}");
        let missing = |k: &str, add| self.mistake(span.clone(), key(k), Mistake::MissingKey { add });
        let route = raw.name.ok_or_else(|| missing("name", "name = \"...\""))?;
        let canary = raw.canary.ok_or_else(|| missing("canary", "canary = \"...\", the canary's Service"))?;
        Ok(HttpRouteConfig {
            name: self.object_name(key("name"), route)?,
            canary: self.object_name(key("canary"), canary)?,
        })
    }

    /// A name as Kubernetes allows it for nearly all objects (RFC 1123 subdomain): it becomes a part of an address.
    fn object_name(&self, key: String, raw: Spanned<String>) -> Result<String, ConfigError> {
        let name = raw.as_ref();
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if (1..=253).contains(&name.len())
            && name.chars().all(inner)
            && name.starts_with(outer)
            && name.ends_with(outer)
        {
            return Ok(raw.into_inner());
        }
        Err(self.mistake(raw.span(), key, Mistake::NotAnObjectName { value: name.clone() }))
    }
}

impl KubernetesConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for KubernetesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() {
            return Ok(());
        }
        let text = |s: &str| toml::Value::from(s).to_string();
        writeln!(f, "\n[kubernetes]")?;
        if let Some(file) = &self.kubeconfig {
            writeln!(f, "kubeconfig = {}", text(&file.to_string_lossy()))?;
        }
        for (key, value) in [("node", &self.node), ("lease_namespace", &self.lease_namespace)] {
            if let Some(value) = value {
                writeln!(f, "{key} = {}", text(value))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for HttpRouteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "http_route = {{ name = \"{}\", canary = \"{}\" }}", self.name, self.canary)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Mistake, Selector};

    const GOOD: &str = r#"
[kubernetes]
kubeconfig = "/etc/canary/kubeconfig"
lease_namespace = "canary-guard"

[[deployment]]
name = "checkout"
orchestrator = "kubernetes"
stable = { kubernetes = { namespace = "shop", selector = "app=checkout,track=stable", container = "app" }, version = "v1" }
canary = { kubernetes = { namespace = "shop", selector = "app=checkout,track=canary" } }
http_route = { name = "checkout", canary = "checkout-canary" }
"#;

    #[test]
    fn versions_are_named_by_namespace_and_labels() {
        let config = Config::parse(GOOD, "good").unwrap_or_else(|e| panic!("{e}"));
        let d = &config.deployments[0];
        let Selector::Pods(stable) = &d.stable.selector else { panic!("{:?}", d.stable) };
        assert_eq!((stable.namespace.as_str(), stable.container.as_deref()), ("shop", Some("app")));
        assert_eq!(d.http_route.as_ref().map(|r| r.canary.as_str()), Some("checkout-canary"));
        let shown = config.to_string();
        assert!(
            shown.contains("stable = { kubernetes = { namespace = \"shop\", selector = \"app=checkout,track=stable\"")
        );
        assert_eq!(Config::parse(&shown, "shown").expect("valid").to_string(), shown);
    }

    #[test]
    fn what_kubernetes_could_not_take_is_a_mistake_with_its_place() {
        let mistake = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            let error = Config::parse(&GOOD.replacen(from, to, 1), "bad").expect_err("a mistake");
            (error.key, *error.mistake)
        };
        let named = |key: &str, value: &str| (key.to_owned(), Mistake::NotAnObjectName { value: value.into() });
        assert_eq!(
            mistake("namespace = \"shop\"", "namespace = \"a/b\""),
            named("checkout.stable.kubernetes.namespace", "a/b")
        );
        assert_eq!(mistake("\"canary-guard\"", "\"Guard\""), named("kubernetes.lease_namespace", "Guard"));
        let (key, empty) = mistake("\"app=checkout,track=canary\"", "\" \"");
        assert_eq!((key.as_str(), empty), ("checkout.canary.kubernetes.selector", Mistake::EmptySelector));
        let (key, missing) = mistake(", selector = \"app=checkout,track=canary\"", "");
        assert_eq!(key, "checkout.canary.kubernetes.selector");
        assert!(matches!(missing, Mistake::MissingKey { .. }));
        let (_, same) = mistake("track=stable\", container = \"app\"", "track=canary\"");
        assert!(matches!(same, Mistake::SamePattern { .. }), "{same:?}");
        let (key, by) = mistake(
            "canary = { kubernetes = { namespace = \"shop\", selector = \"app=checkout,track=canary\" } }",
            "canary = { cgroup = \"/a\" }",
        );
        assert_eq!(
            (key.as_str(), by),
            ("checkout.canary.cgroup", Mistake::NotKnownTo { orchestrator: "kubernetes", by: "cgroup" })
        );
        let (_, two) = mistake("version = \"v1\"", "cgroup = \"/a\"");
        assert_eq!(two, Mistake::TwoSelectors { other: "kubernetes" });
    }

    #[test]
    fn the_node_is_the_one_that_is_written() {
        let config =
            Config::parse(&GOOD.replace("[kubernetes]", "[kubernetes]\nnode = \"node-a\""), "good").expect("valid");
        assert_eq!(config.kubernetes.node_name(), "node-a");
    }
}
