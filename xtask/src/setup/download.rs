//! Single files of Debian's packages: downloaded by apt, which holds them against their archive's signed lists, and not
//! installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::progress::Step;

/// Puts what `package` has at `path` to `wanted`. `sources` are lines of a sources.list: archives to ask instead of the
/// machine's, whose apt learns nothing of them.
pub fn file(step: &Step, sources: Option<&str>, package: &str, path: &str, wanted: &Path) -> Result<()> {
    let directory = wanted.parent().context("a file lies in a directory")?;
    // Beside it, so that it can be moved there as a whole.
    let unpacked = directory.join(format!("unpack-{}", std::process::id()));
    fs::create_dir_all(&unpacked).with_context(|| format!("make {}", unpacked.display()))?;
    let taken = unpack(step, sources, package, &unpacked).and_then(|()| {
        let from = unpacked.join(path);
        fs::rename(&from, wanted).with_context(|| format!("move {} to {}", from.display(), wanted.display()))
    });
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))?;
    taken
}

fn unpack(step: &Step, sources: Option<&str>, package: &str, into: &Path) -> Result<()> {
    let configuration = sources.map(|sources| apart(sources, &into.join("apt"))).transpose()?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.args(configuration.iter().flat_map(|path| [Path::new("-c"), path.as_path()]));
        command
    };
    if configuration.is_some() {
        step.command(apt_get().args(["update", "-q"]))?;
    }
    step.command(apt_get().args(["download", "-q", package]).current_dir(into))?;
    let mut files = fs::read_dir(into).with_context(|| format!("list {}", into.display()))?.flatten();
    let deb = files.find(|file| file.path().extension().is_some_and(|extension| extension == "deb"));
    let deb = deb.with_context(|| format!("apt-get download {package} left no package"))?.path();
    step.command(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))
}

/// A configuration by which apt knows `sources` and no others, and keeps in `directory` all that it learns. What the
/// machine's own says of proxies goes on to hold.
fn apart(sources: &str, directory: &Path) -> Result<PathBuf> {
    for needed in ["state/lists/partial", "cache/archives/partial"] {
        let needed = directory.join(needed);
        fs::create_dir_all(&needed).with_context(|| format!("make {}", needed.display()))?;
    }
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    write("sources.list", sources)?;
    // A list that cannot be had is an error: apt goes on without it else. The hooks are for a change of the machine's lists.
    let text = format!(
        "APT::Update::Error-Mode \"any\";\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear APT::Default-Release;\n\
         Dir::State \"{0}/state\";\n\
         Dir::State::Status \"/dev/null\";\n\
         Dir::Cache \"{0}/cache\";\n\
         Dir::Etc::SourceList \"{0}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n",
        directory.display()
    );
    write("apt.conf", &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::packages;

    #[test]
    fn apt_kept_apart_knows_the_given_sources_and_no_others() {
        if !packages::apt_is_here() {
            println!("SKIP apt_kept_apart_knows_the_given_sources_and_no_others: there is no apt-get here");
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let sources = "deb [target=Packages] http://archive.example/debian there main\n";
        let configuration = apart(sources, directory.path()).expect("it can be written");
        let mut command = Command::new("apt-get");
        command.arg("-c").arg(configuration).args(["update", "--print-uris"]);
        let output = command.output().expect("apt-get starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let ours = "'http://archive.example/debian/dists/there/";
        assert!(!said.is_empty() && said.lines().all(|uri| uri.starts_with(ours)), "{said}");
    }
}
