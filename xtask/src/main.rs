//! Everything around the build: `cargo xtask <verb>`. One file per verb.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod deb;
mod dist;
mod fuzz;
mod image;
mod lint;
mod progress;
mod run;
mod setup;
mod test;
mod vm;

#[path = "../../canary-user/build/toolchain.rs"]
mod toolchain;

#[cfg(test)]
mod documented;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set up, run the demo, test, bench and lint the canary guard",
    after_help = EXAMPLES
)]
struct Options {
    /// Where a missing compiler for the BPF target may come from; one that is there is used as it is
    #[arg(long, global = true, value_enum, default_value_t, env = "CANARY_SETUP_FROM")]
    setup_from: setup::From,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup                      install what is missing to build; nothing else is changed
  cargo xtask run                        the demo: the guard catches a canary that takes twice the CPU, in about 45 s
  cargo xtask run --orchestrator docker  the same on containers of the machine's Docker, or on units of its systemd
  cargo xtask run --scenario crash       another thing that goes wrong; `cargo xtask run --help` lists them
  cargo xtask test                       all tests; those on the real kernel need root
  cargo xtask test --filter journal      those whose name contains a text
  cargo xtask bench judge --quick        false alarms and delays of the judge on generated services, each with its limit
  cargo xtask fuzz recording             ten minutes of inputs made to make a recording's reader or the judge panic
  cargo xtask deb                        a Debian package; its path is printed
  cargo xtask dist --arch arm64          the guard as one file that needs no library, for machines of that architecture

Exit codes: 0 done, 1 failure, 2 wrong usage. `run` gives 0 only where the guard did what the scenario calls for.";

#[derive(Subcommand)]
enum Verb {
    /// Install what the kernel programs need to be built (a C compiler, a compiler with `core` for BPF, bpf-linker); a second
    /// run finds nothing to do
    Setup {
        /// Also cargo-deb, which `cargo xtask deb` and the tests of the package need
        #[arg(long)]
        deb: bool,
        /// Also kubectl 1.21 or newer where the PATH has none, which the tests of the Kubernetes manifests need
        #[arg(long)]
        kubectl: bool,
    },
    /// Set up, build, and show the guard catching a canary that got worse (needs root, or sudo)
    Run(run::Options),
    /// Set up and run all tests; the last line is `N passed, N failed, N skipped`
    Test(test::Options),
    /// Run checks and end-to-end tests on Debian's kernels in qemu, and print which hooks each accepts
    Vm(vm::Options),
    /// Measure; without a name, list what can be measured
    Bench(bench::Options),
    /// Set up, build, and give the readers and the judge what coverage-guided fuzzing makes up: no panic
    Fuzz(fuzz::Options),
    /// Set up, build, and make a Debian package: binary, unit, configuration, manual pages and completions
    Deb,
    /// Set up, build, and make the guard one file that needs no library, also for another architecture; its path is printed
    Dist(dist::Options),
    /// Build the container image with this machine's Docker, by deploy/Dockerfile
    Image(image::Options),
    /// Formatting, clippy for user space and kernel programs, licences and sources of dependencies
    Lint,
}

fn main() -> ExitCode {
    let Options { setup_from, verb } = Options::parse();
    let done = match verb {
        Verb::Setup { deb, kubectl } => setup::setup(setup_from)
            .and_then(|()| if deb { deb::cargo_deb().map(drop) } else { Ok(()) })
            .and_then(|()| if kubectl { setup::kubectl::ensure() } else { Ok(()) }),
        Verb::Run(options) => run::run(&options, setup_from),
        Verb::Test(options) => return test::test(&options, setup_from),
        Verb::Vm(options) => vm::vm(&options, setup_from),
        Verb::Bench(options) => bench::bench(&options, setup_from),
        Verb::Fuzz(options) => fuzz::fuzz(&options, setup_from),
        Verb::Deb => deb::deb(setup_from),
        Verb::Dist(options) => dist::dist(&options, setup_from),
        Verb::Image(options) => image::image(&options),
        Verb::Lint => lint::lint(setup_from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
