//! Scenarios on stdin, one JSON verdict line each on stdout.
//!
//! Per scenario: one JSON header line, then raw little-endian f32, NaN for missing, larger is worse:
//! `pre x indicators x stable` before the canary, with `own_pre` also `pre x indicators x canary`,
//! then `windows x indicators x (canary + stable)`, canary instances first. It decides online: each window is read,
//! judged and forgotten.

use std::io::{BufRead, Read, Write, stdin, stdout};

use anyhow::{Context, Result};
use canary_user::judge::Parameters;
use serde::{Deserialize, Serialize};

use crate::trial::Trial;

#[derive(Deserialize)]
struct Header {
    id: u64,
    indicators: Vec<String>,
    canary: usize,
    stable: usize,
    pre: usize,
    own_pre: bool,
    windows: usize,
    horizon: Option<usize>,
    warmup: usize,
    alpha: f64,
}

#[derive(Serialize)]
struct Answer {
    id: u64,
    verdict: &'static str,
    t: usize,
    t_healthy: Option<usize>,
    causes: Vec<String>,
}

pub fn serve() -> Result<()> {
    let (mut input, mut output) = (stdin().lock(), stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line).context("read a header line from stdin")? > 0 {
        let header: Header = serde_json::from_str(&line).with_context(|| format!("parse header {line:?}"))?;
        let answer = judge(&header, &mut input)?;
        serde_json::to_writer(&mut output, &answer).context("write a verdict line to stdout")?;
        output.write_all(b"\n").and_then(|()| output.flush()).context("write a verdict line to stdout")?;
        line.clear();
    }
    Ok(())
}

fn judge(header: &Header, input: &mut impl Read) -> Result<Answer> {
    let (n, k, m) = (header.indicators.len(), header.canary, header.stable);
    let parameters = Parameters {
        alpha: header.alpha,
        warmup_windows: header.warmup as u64,
        horizon_windows: header.horizon.unwrap_or(header.windows).max(1) as u64,
        ..Parameters::default()
    };
    let mut trial = Trial::new(parameters, n, k, m);
    // The stable history comes before the canary's own, though they are of the same time.
    let before = read_ln(input, header.pre * n * m)?;
    let own = read_ln(input, if header.own_pre { header.pre * n * k } else { 0 })?;
    for t in 0..header.pre {
        let own = header.own_pre.then(|| &own[t * n * k..(t + 1) * n * k]);
        trial.before(&before[t * n * m..(t + 1) * n * m], own);
    }
    let mut open = true;
    for _ in 0..header.windows {
        // Also after the verdict: the rest of the scenario is still to be read.
        let window = read_ln(input, n * (k + m))?;
        open = open && trial.window(&window);
    }
    Ok(Answer {
        id: header.id,
        verdict: match (trial.regressed_at, trial.healthy_at) {
            (Some(_), _) => "regressed",
            (None, Some(_)) => "healthy",
            (None, None) => "inconclusive",
        },
        t: trial.regressed_at.unwrap_or(header.windows.saturating_sub(1)),
        t_healthy: trial.healthy_at,
        causes: trial.causes().into_iter().take(3).map(|i| header.indicators[i].clone()).collect(),
    })
}

/// Readings as natural logarithms.
fn read_ln(input: &mut impl Read, count: usize) -> Result<Vec<f64>> {
    let mut bytes = vec![0u8; 4 * count];
    input.read_exact(&mut bytes).with_context(|| format!("read {count} readings from stdin"))?;
    let ln = |value: f32| {
        // `max` would turn NaN into a reading.
        if value.is_nan() { f64::NAN } else { libm::log(f64::from(value).max(1e-9)) }
    };
    Ok(bytes.chunks_exact(4).map(|b| ln(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect())
}
