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

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::{
    cargo::{self, Artifact},
    dist::{self, Arch},
    progress::Step,
    setup,
    test::{lanes, libtest::Counts},
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
    /// Kernels and programs of this architecture [default: as this machine]
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

pub fn vm(options: &Options, setup_from: setup::From) -> Result<()> {
    setup::setup(setup_from)?;
    let arch = match options.arch {
        Some(arch) => arch,
        None => here()?,
    };
    let built = build(arch)?;
    let outcome = boot(&prepare(&options.kernels, arch)?, &built, options.demo)?;
    let outcome = outcome.into_iter().collect::<Result<Vec<_>>>()?;
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
    let mut there = Vec::new();
    for version in KERNELS {
        println!("testing kernel {version} in qemu");
        match here().and_then(|arch| prepare(&[version.to_owned()], arch)) {
            Ok(prepared) => there.push(prepared),
            Err(reason) => {
                println!("SKIP kernel_{version}_in_qemu: {reason:#}");
                total.skipped += 1;
            }
        }
    }
    let mut there = there.into_iter();
    let Some(mut prepared) = there.next() else { return total };
    prepared.kernels.extend(there.flat_map(|another| another.kernels));
    let outcome = boot(&prepared, built, false).unwrap_or_else(|error| vec![Err(error)]);
    for guest in outcome {
        match guest {
            Ok(report) => {
                println!("  {}: {}", report.kernel, report.counts());
                total.add(report.counts());
            }
            Err(error) => {
                println!("FAILED {error:#}");
                total.failed += 1;
            }
        }
    }
    total
}

fn here() -> Result<Arch> {
    Arch::here()
        .with_context(|| format!("Debian's kernels run here on x86-64 and on arm64, not on {}", env::consts::ARCH))
}

fn build(arch: Arch) -> Result<Vec<Artifact>> {
    if Arch::here() == Some(arch) {
        // The same selection as `cargo xtask test`, so that nothing is compiled twice.
        let all = ["test", "--release", "--locked", "--workspace", "--no-run"];
        return cargo::build("build the guard and the tests", &all);
    }
    // The guest has no library of that architecture.
    let variables = dist::cross(arch, &dist::ALONE)?;
    let mut arguments = vec!["build", "--release", "--locked", "--target", arch.target()];
    arguments.extend([
        "--package",
        "canary-user",
        "--bin",
        "canary",
        "--package",
        "canary-demo",
        "--bin",
        "canary-demo",
    ]);
    arguments.extend(["--package", "canary-e2e"]);
    arguments.extend(guest::TESTS.iter().flat_map(|test| ["--test", test]));
    cargo::build_with(&format!("build the guard and the tests for {}", arch.debian()), &arguments, &variables)
}

/// What has to be fetched before anything can boot.
struct Prepared {
    arch: Arch,
    qemu: qemu::Qemu,
    busybox: PathBuf,
    kernels: Vec<kernel::Kernel>,
}

fn prepare(kernels: &[String], arch: Arch) -> Result<Prepared> {
    // The kernels first: they see to it that apt knows packages of the architecture.
    let kernels = kernels.iter().map(|version| kernel::fetch(version, arch)).collect::<Result<_>>()?;
    Ok(Prepared { arch, qemu: qemu::Qemu::ensure(arch)?, busybox: kernel::busybox(arch)?, kernels })
}

/// What each guest said, in the order of the kernels; an error of its own where it did not come to its end.
fn boot(prepared: &Prepared, built: &[Artifact], demo: bool) -> Result<Vec<Result<Report>>> {
    let at_a_time = at_a_time(prepared.qemu.accelerator)?;
    let steps = guest::steps(built, demo, prepared.qemu.accelerator == qemu::Accelerator::Emulation);
    let image = image::make(&prepared.busybox, &steps, prepared.arch)?;
    let places: Vec<usize> = (0..prepared.kernels.len()).collect();
    let mut ended = Vec::new();
    lanes::side_by_side(
        &places,
        at_a_time,
        |place| run(&prepared.qemu, &prepared.kernels[*place], &image),
        |place, guest| {
            let release = &prepared.kernels[*place].release;
            let panicked =
                |_| Err(anyhow!("cargo xtask panicked while the guest with kernel {release} ran, see above"));
            ended.push((*place, guest.unwrap_or_else(panicked)));
        },
    );
    ended.sort_by_key(|(place, _)| *place);
    Ok(ended.into_iter().map(|(_, report)| report).collect())
}

/// How many guests run at a time: one, and nothing beside it. Its two CPUs never sleep, so that under KVM it takes two of this machine's
/// all the time, and it holds counts against the kernel's own book within a per cent. Emulated, both of them are one thread: who has
/// seen on a machine that the tests bear another guest on the next CPU asks for more by `CANARY_GUESTS`.
fn at_a_time(accelerator: qemu::Accelerator) -> Result<usize> {
    match env::var("CANARY_GUESTS") {
        Ok(number) if accelerator == qemu::Accelerator::Emulation => {
            number.parse::<usize>().with_context(|| format!("CANARY_GUESTS={number} is no number"))
        }
        _ => Ok(1),
    }
}

/// One guest, from its first line to its last.
fn run(qemu: &qemu::Qemu, kernel: &kernel::Kernel, image: &Path) -> Result<Report> {
    let step = Step::start(format!("kernel {} under {}", kernel.release, qemu.accelerator));
    let mut report = Report::new(&kernel.release);
    let log = kernel::directory().join(format!("{}.log", kernel.release));
    let ended = qemu.run(kernel, image, &log, |line| {
        step.detail(line);
        for shown in report.line(line) {
            println!("{shown}");
        }
    });
    ended.with_context(|| {
        format!("the guest with kernel {}; it said in {}:\n{}", kernel.release, log.display(), last_lines(&log))
    })?;
    report.end();
    if qemu.accelerator == qemu::Accelerator::Emulation {
        for test in guest::EMULATION_SKIPS {
            println!("SKIP {test}: {}", guest::EMULATION_REASON);
            report.steps.insert(test.into(), Counts { skipped: 1, ..Counts::default() });
        }
    }
    step.done(&report.counts().to_string());
    Ok(report)
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
