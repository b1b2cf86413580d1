//! `cargo xtask bench overhead` becomes this.

use std::process::ExitCode;

use canary_e2e::overhead::{Limit, Plan, daemon, measure, table};
use clap::{Parser, ValueEnum, builder::RangedU64ValueParser};
use serde_json::json;

#[derive(Parser)]
struct Options {
    /// Rounds of each comparison, 5 at least: the figure is their median
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(5..))]
    rounds: usize,
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    row: String,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[derive(clap::Subcommand)]
enum Inner {
    /// A process of the bench itself
    #[command(hide = true)]
    Sleeper { procs: String },
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Inner::Sleeper { procs }) = options.inner {
        return match daemon::sleeper(&procs) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let rows = match measure(&Plan { rounds: options.rounds, row: options.row }) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let short = rows.iter().filter(|row| !row.holds()).count();
    let limits = rows.iter().filter(|row| row.limit != Limit::None).count();
    match options.output {
        Output::Text => println!("{}{} of {limits} limits hold", table(&rows), limits - short),
        Output::Json => {
            let rows: Vec<_> = rows.iter().map(|row| row.json()).collect();
            println!("{:#}", json!({ "rounds": options.rounds, "rows": rows, "holds": short == 0 }));
        }
    }
    if short > 0 || rows.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_figure_is_a_median_of_fewer_than_five() {
        let rounds = |n: &str| Options::try_parse_from(["overhead", "--rounds", n]).map(|options| options.rounds);
        assert!(rounds("4").is_err() && rounds("0").is_err());
        assert_eq!(rounds("5").expect("enough"), 5);
    }
}
