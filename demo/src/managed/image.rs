//! The files of an image: this program and the libraries that it is linked with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// Path of the program in the image.
pub const PROGRAM: &str = "/canary-demo";

/// The image's root directory as a tar archive.
pub fn files(program: &Path) -> anyhow::Result<Vec<u8>> {
    let root = tempfile::tempdir().context("make a directory for the image")?;
    let inside = |path: &Path| root.path().join(path.strip_prefix("/").unwrap_or(path));
    let target = inside(Path::new(PROGRAM));
    // Some storage drivers copy the image for each container: without the notes for debuggers it is a tenth.
    let stripped = Command::new("strip").arg("--strip-debug").arg("-o").arg(&target).arg(program).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(program, &target).with_context(|| format!("copy {}", program.display()))?;
    }
    for library in libraries(program)? {
        let target = inside(&library);
        let directory = target.parent().context("a library lies in a directory")?;
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        fs::copy(&library, &target).with_context(|| format!("copy {}", library.display()))?;
    }
    let mut tar = Command::new("tar");
    let packed = tar.arg("--create").arg("--directory").arg(root.path()).arg(".").output().context("start tar")?;
    ensure!(packed.status.success(), "tar: {}", String::from_utf8_lossy(&packed.stderr).trim());
    Ok(packed.stdout)
}

/// The loader and the libraries of a program, as `ldd` tells them; none where it is linked statically.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output().context("start ldd, which tells the program's libraries")?;
    Ok(paths(&String::from_utf8_lossy(&told.stdout)))
}

/// "libc.so.6 => /lib/libc.so.6 (0x7f…)", "/lib64/ld-linux-x86-64.so.2 (0x7f…)", or without a path for what the kernel brings.
fn paths(told: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let place = line.rsplit("=>").next()?.trim();
        let path = place.rsplit_once(" (")?.0;
        path.starts_with('/').then(|| path.into())
    };
    told.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let told = "\tlinux-vdso.so.1 (0x00007fd0)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fd0)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007fd0)\n";
        assert_eq!(paths(told), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
