//! By what the instances of a role are known.

use std::ops::Range;

use globset::{GlobBuilder, GlobMatcher};
use toml::Spanned;

use super::{ConfigError, Mistake, Pods, RoleConfig, check::Source, raw::RawRole};

/// Where cgroup2 mostly is.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// By what the instances of a role are known.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Paths from the cgroup2 root; `*` does not cross `/`.
    Cgroup(Pattern),
    /// Names of systemd services.
    Unit(Pattern),
    /// Names of containers.
    Container(Pattern),
    /// A label of containers: "key" or "key=value".
    Label(String),
    /// Names of containers' images, as they were given when the container was made.
    Image(Pattern),
    /// Pods on this node.
    Pods(Pods),
}

/// A glob.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    matcher: GlobMatcher,
}

impl Pattern {
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }

    /// The name, where only one can match.
    pub fn only(&self) -> Option<&str> {
        (!self.text.contains(['*', '?', '[', '{', '\\'])).then_some(&self.text)
    }
}

impl Selector {
    /// The key in the configuration, and what is written there.
    pub fn written(&self) -> (&'static str, &str) {
        match self {
            Selector::Cgroup(pattern) => ("cgroup", &pattern.text),
            Selector::Unit(pattern) => ("systemd", &pattern.text),
            Selector::Container(pattern) => ("container", &pattern.text),
            Selector::Label(label) => ("label", label),
            Selector::Image(pattern) => ("image", &pattern.text),
            Selector::Pods(pods) => ("kubernetes", &pods.text),
        }
    }
}

impl Source<'_> {
    pub(super) fn role(&self, key: &str, raw: Spanned<RawRole>) -> Result<RoleConfig, ConfigError> {
        let span = raw.span();
        let raw = raw.into_inner();
        let given = [
            ("cgroup", raw.cgroup),
            ("systemd", raw.systemd),
            ("container", raw.container),
            ("label", raw.label),
            ("image", raw.image),
        ];
        let version = raw.version.map(|v| v.into_inner().into());
        let mut given = given.into_iter().filter_map(|(by, value)| Some((by, value?)));
        if let Some(pods) = raw.kubernetes {
            if let Some((other, again)) = given.next() {
                let mistake = Mistake::TwoSelectors { other: "kubernetes" };
                return Err(self.mistake(again.span(), format!("{key}.{other}"), mistake));
            }
            let place = self.place(pods.span().start);
            let pods = self.pods(&format!("{key}.kubernetes"), pods)?;
            return Ok(RoleConfig { selector: Selector::Pods(pods), version, place });
        }
        let Some((by, value)) = given.next() else {
            return Err(self.mistake(span, format!("{key}.cgroup"), Mistake::MissingKey { add: "cgroup = \"/...\"" }));
        };
        if let Some((other, again)) = given.next() {
            return Err(self.mistake(again.span(), format!("{key}.{other}"), Mistake::TwoSelectors { other: by }));
        }
        let (place, key) = (self.place(value.span().start), format!("{key}.{by}"));
        let selector = match by {
            "cgroup" => Selector::Cgroup(self.cgroup(key, value)?),
            "systemd" => Selector::Unit(self.unit(key, value)?),
            "container" => Selector::Container(self.glob(key, value.span(), value.as_ref().trim_start_matches('/'))?),
            "image" => Selector::Image(self.glob(key, value.span(), value.as_ref())?),
            _ if value.as_ref().trim().is_empty() => {
                return Err(self.mistake(value.span(), key, Mistake::EmptyPattern));
            }
            _ => Selector::Label(value.into_inner()),
        };
        Ok(RoleConfig { selector, version, place })
    }

    fn unit(&self, key: String, value: Spanned<String>) -> Result<Pattern, ConfigError> {
        let pattern = value.as_ref().trim();
        if !pattern.ends_with(".service") || pattern.contains('/') {
            return Err(self.mistake(value.span(), key, Mistake::NotAService { pattern: pattern.into() }));
        }
        self.glob(key, value.span(), pattern)
    }

    fn glob(&self, key: String, span: Range<usize>, pattern: &str) -> Result<Pattern, ConfigError> {
        if pattern.is_empty() {
            return Err(self.mistake(span, key, Mistake::EmptyPattern));
        }
        match GlobBuilder::new(pattern).literal_separator(true).build() {
            Err(e) => {
                let mistake = Mistake::BadGlob { pattern: pattern.into(), message: e.kind().to_string() };
                Err(self.mistake(span, key, mistake))
            }
            Ok(glob) => Ok(Pattern { text: pattern.into(), matcher: glob.compile_matcher() }),
        }
    }

    fn cgroup(&self, key: String, cgroup: Spanned<String>) -> Result<Pattern, ConfigError> {
        let span = cgroup.span();
        let given = cgroup.as_ref().trim();
        // The kernel's paths have no slash at the end.
        let pattern = if given.len() > 1 { given.trim_end_matches('/') } else { given };
        let refuse = |mistake| Err(self.mistake(span.clone(), key.clone(), mistake));
        if pattern.is_empty() && !given.is_empty() || pattern == "/" {
            return refuse(Mistake::RootPattern);
        }
        if !pattern.is_empty() && !pattern.starts_with('/') {
            return refuse(Mistake::NotAbsolute { pattern: pattern.into() });
        }
        if let Some(rest) = pattern.strip_prefix(MOUNT_POINT)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            let write = if rest.is_empty() { "/..." } else { rest };
            return refuse(Mistake::MountPoint { pattern: pattern.into(), write: write.into() });
        }
        self.glob(key, span, pattern)
    }
}
