//! `cargo xtask vm`: boots Debian's kernels in qemu and runs in each what needs a kernel that this machine does not have:
//! `canary check`, the end-to-end tests with every controller of cgroup v2, those of a quarantine by systemd among them, and the
//! demo against limits of memory and CPU.
//!
//! Prints a table of kernels, signals and hooks. What apt brings is kept in `.canary/vm`.

mod guest;
mod image;
mod kernel;
mod qemu;
mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cargo::{self, Artifact},
    progress::Step,
    setup,
    test::libtest::Counts,
};
use guest::Report;

/// The versions that Debian 12 and 13 came with.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

#[derive(Args)]
pub struct Options {
    /// A kernel by the beginning of its version; may be given several times
    #[arg(long = "kernel", value_name = "VERSION", default_values = KERNELS)]
    kernels: Vec<String>,
    /// Run the demo's scenarios with a limit of memory or CPU too (some minutes for each kernel)
    #[arg(long)]
    demo: bool,
}

pub fn vm(options: &Options, setup_from: setup::From) -> Result<()> {
    setup::setup(setup_from)?;
    let built = build()?;
    let outcome = boot(&prepare(&options.kernels)?, &built, options.demo)?;
    println!("{}", table::hooks(&outcome));
    println!("{}", table::tests(&outcome));
    let failed: Vec<&str> =
        outcome.iter().filter(|report| report.counts().failed > 0).map(|report| report.kernel.as_str()).collect();
    if !failed.is_empty() {
        bail!("something failed on {}, see above", failed.join(" and "));
    }
    Ok(())
}

/// For `cargo xtask test`: each kernel, counted. A machine that cannot have the guest skips it with the reason.
pub fn as_test(built: &[Artifact]) -> Counts {
    let mut total = Counts::default();
    for version in KERNELS {
        println!("testing kernel {version} in qemu");
        let counts = match prepare(&[version.to_owned()]) {
            Err(reason) => {
                println!("SKIP kernel_{version}_in_qemu: {reason:#}");
                Counts { skipped: 1, ..Counts::default() }
            }
            Ok(prepared) => match boot(&prepared, built, false) {
                Ok(reports) => reports.iter().map(Report::counts).fold(Counts::default(), Counts::and),
                Err(error) => {
                    println!("FAILED {error:#}");
                    Counts { failed: 1, ..Counts::default() }
                }
            },
        };
        println!("  {counts}");
        total.add(counts);
    }
    total
}

/// The same selection as `cargo xtask test`, so that nothing is compiled twice.
fn build() -> Result<Vec<Artifact>> {
    cargo::build("build the guard and the tests", &["test", "--release", "--locked", "--workspace", "--no-run"])
}

/// What has to be fetched before anything can boot.
struct Prepared {
    qemu: qemu::Qemu,
    busybox: PathBuf,
    kernels: Vec<kernel::Kernel>,
}

fn prepare(kernels: &[String]) -> Result<Prepared> {
    Ok(Prepared {
        qemu: qemu::Qemu::ensure()?,
        busybox: kernel::busybox()?,
        kernels: kernels.iter().map(|version| kernel::fetch(version)).collect::<Result<_>>()?,
    })
}

fn boot(prepared: &Prepared, built: &[Artifact], demo: bool) -> Result<Vec<Report>> {
    let emulated = prepared.qemu.accelerator == qemu::Accelerator::Emulation;
    let steps = guest::steps(built, demo, emulated);
    let image = image::make(&prepared.busybox, &steps)?;
    let mut reports = Vec::new();
    for kernel in &prepared.kernels {
        let step = Step::start(format!("kernel {} under {}", kernel.release, prepared.qemu.accelerator));
        let mut report = Report::new(&kernel.release);
        let log = kernel::directory().join(format!("{}.log", kernel.release));
        let ended = prepared.qemu.run(kernel, &image, &log, |line| {
            step.detail(line);
            for shown in report.line(line) {
                println!("{shown}");
            }
        });
        ended.with_context(|| {
            format!("the guest with kernel {}; it said in {}:\n{}", kernel.release, log.display(), last_lines(&log))
        })?;
        report.end();
        if emulated {
            for test in guest::EMULATION_SKIPS {
                println!("SKIP {test}: {}", guest::EMULATION_REASON);
                report.steps.insert(test.into(), Counts { skipped: 1, ..Counts::default() });
            }
        }
        step.done(&report.counts().to_string());
        reports.push(report);
    }
    Ok(reports)
}

fn last_lines(log: &std::path::Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
