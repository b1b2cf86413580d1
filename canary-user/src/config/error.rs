//! What can be wrong with a configuration: one variant and one wording per mistake, with its place and what to do.

use std::{fmt, sync::Arc};

/// Where something is written. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub origin: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.origin, self.line, self.column)
    }
}

/// A mistake with its place and the key that it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    pub place: Place,
    /// Empty where the text is not TOML.
    pub key: String,
    /// Boxed to keep results small.
    pub mistake: Box<Mistake>,
}

/// The mistakes.
#[derive(Clone, Debug, PartialEq)]
pub enum Mistake {
    NotToml { message: String },
    WrongType { message: String },
    UnknownKey { nearest: Option<String>, known: Vec<String> },
    MissingKey { add: &'static str },
    NoDeployment,
    BadDuration { value: String },
    OutOfRange { value: String, least: String, most: String },
    NotAllowed { value: String, write: String },
    EmptyName,
    DuplicateName { name: String, first: Place },
    EmptyPattern,
    EmptySelector,
    NotAnObjectName { value: String },
    NotAbsolute { pattern: String },
    MountPoint { pattern: String, write: String },
    RootPattern,
    BadGlob { pattern: String, message: String },
    SamePattern { pattern: String, other: Place },
    TwoSelectors { other: &'static str },
    NotAService { pattern: String },
    NotKnownTo { orchestrator: &'static str, by: &'static str },
    UnknownMode { value: String },
    UnknownWord { value: String, known: String },
    UnknownOrchestrator { value: String },
    BadListenAddress { value: String },
    BadPath { value: String },
    BadAddress { value: String },
    Overlap { cgroup: String, other_key: String, other: Place },
    Nested { inner: String, outer: String, other_key: String, other: Place },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.mistake)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.mistake)
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::NotToml { message } => write!(f, "not TOML: {message}"),
            Mistake::WrongType { message } => write!(f, "{message}"),
            Mistake::UnknownKey { nearest: Some(nearest), .. } => {
                write!(f, "unknown key: did you mean '{nearest}'?")
            }
            Mistake::UnknownKey { nearest: None, known } => {
                write!(f, "unknown key: remove it; known here are {}", known.join(", "))
            }
            Mistake::MissingKey { add } => write!(f, "missing: add {add}"),
            Mistake::NoDeployment => write!(f, "missing: add at least one [[deployment]] with name, stable and canary"),
            Mistake::BadDuration { value } => {
                write!(f, "\"{value}\" is not a duration: write a number and a unit, such as \"1s\" or \"500ms\"")
            }
            Mistake::OutOfRange { value, least, most } => {
                write!(f, "{value} is out of range: write {least} to {most}")
            }
            Mistake::NotAllowed { value, write } => write!(f, "{value} is not allowed: {write}"),
            Mistake::EmptyName => write!(f, "the name is empty: write the name that people know the service by"),
            Mistake::DuplicateName { name, first } => {
                write!(f, "\"{name}\" is already the name of the deployment at {first}: give each its own name")
            }
            Mistake::EmptyPattern => {
                write!(f, "the pattern is empty: write a path below the cgroup2 root, such as \"/checkout/v1*\"")
            }
            Mistake::EmptySelector => {
                write!(f, "the selector is empty: write the version's labels, such as \"app=checkout,track=canary\"")
            }
            Mistake::NotAnObjectName { value } => {
                write!(f, "\"{value}\" is not a name in Kubernetes: write lower-case letters, digits, '-' and '.'")
            }
            Mistake::NotAbsolute { pattern } => {
                write!(f, "\"{pattern}\" does not begin with '/': write the path from the cgroup2 root, \"/{pattern}\"")
            }
            Mistake::MountPoint { pattern, write } => {
                write!(f, "\"{pattern}\" names the mount point: write the path from the cgroup2 root, \"{write}\"")
            }
            Mistake::RootPattern => {
                write!(f, "\"/\" is the whole machine: write the cgroup of one version, such as \"/checkout/v1*\"")
            }
            Mistake::BadGlob { pattern, message } => {
                write!(f, "\"{pattern}\" is not a glob: {message}; put '[' and '{{' in brackets to mean them literally")
            }
            Mistake::SamePattern { pattern, other } => {
                write!(
                    f,
                    "\"{pattern}\" is also the pattern of stable ({other}): a version cannot be compared with itself"
                )
            }
            Mistake::TwoSelectors { other } => {
                write!(f, "the instances are named by '{other}' already: keep one of the two")
            }
            Mistake::NotAService { pattern } => {
                write!(f, "\"{pattern}\" is not the name of a service: write one, such as \"checkout@v2*.service\"")
            }
            Mistake::NotKnownTo { orchestrator, by } => {
                write!(f, "orchestrator \"{orchestrator}\" acts on what it knows by name, not by '{by}': write ")?;
                match *orchestrator {
                    "systemd" => write!(f, "systemd = \"...service\""),
                    "kubernetes" => write!(f, "kubernetes = {{ namespace = \"...\", selector = \"...\" }}"),
                    _ => write!(f, "container, label or image"),
                }
            }
            Mistake::UnknownMode { value } => {
                write!(f, "unknown mode \"{value}\": choose observe, advise, quarantine, drain or rollback")
            }
            Mistake::UnknownWord { value, known } => write!(f, "\"{value}\" is not known here: write {known}"),
            Mistake::UnknownOrchestrator { value } => {
                let all: Vec<&str> = super::OrchestratorKind::ALL.iter().map(|kind| kind.name()).collect();
                write!(f, "unknown orchestrator \"{value}\": choose one of {}", all.join(", "))
            }
            Mistake::BadListenAddress { value } => {
                write!(f, "\"{value}\" is not an address: write IP:port, such as \"127.0.0.1:9847\"")
            }
            Mistake::BadPath { value } => {
                write!(f, "\"{value}\" is not an absolute path: begin it with '/'")
            }
            Mistake::BadAddress { value } => {
                write!(f, "\"{value}\" is not an address: write http:// or https://, a host and a path")
            }
            Mistake::Overlap { cgroup, other_key, other } => {
                write!(f, "cgroup {cgroup} is also matched by {other_key} ({other}): narrow one of the two patterns")
            }
            Mistake::Nested { inner, outer, other_key, other } => write!(
                f,
                "cgroup {inner} lies inside {outer}, which {other_key} matches ({other}), and would be counted for both: \
                 narrow one of the two patterns"
            ),
        }
    }
}
