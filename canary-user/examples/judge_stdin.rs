//! The judge's core behind the benchmark protocol: scenarios on stdin, one JSON verdict line each on stdout.
//!
//! Per scenario: one JSON header line, then raw little-endian f32, NaN for missing, larger is worse:
//! `pre x indicators x stable` before the canary, with `own_pre` also `pre x indicators x canary`,
//! then `windows x indicators x (canary + stable)`, canary instances first. It decides online: each window is read,
//! judged and forgotten. `JUDGE_TIMING=1` prints nanoseconds per indicator and window on stderr at the end.

use std::{
    io::{BufRead, Read, Write, stdin, stdout},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use canary_user::judge::{
    Parameters, Tolerance,
    pace::{Differences, Frame, OWN, PLACEBOS, Pace, Phase, StableSide},
};
use serde::{Deserialize, Serialize};

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

#[derive(Default)]
struct Clock {
    spent: Duration,
    indicator_windows: u64,
}

fn main() -> Result<()> {
    let (mut input, mut output) = (stdin().lock(), stdout().lock());
    let mut clock = Clock::default();
    let mut line = String::new();
    while input.read_line(&mut line).context("read a header line from stdin")? > 0 {
        let header: Header = serde_json::from_str(&line).with_context(|| format!("parse header {line:?}"))?;
        let answer = judge(&header, &mut input, &mut clock)?;
        serde_json::to_writer(&mut output, &answer).context("write a verdict line to stdout")?;
        output.write_all(b"\n").and_then(|()| output.flush()).context("write a verdict line to stdout")?;
        line.clear();
    }
    if std::env::var_os("JUDGE_TIMING").is_some() && clock.indicator_windows > 0 {
        let ns = clock.spent.as_nanos() as f64 / clock.indicator_windows as f64;
        eprintln!("{ns:.0} ns per indicator and window over {} of them", clock.indicator_windows);
    }
    Ok(())
}

fn judge(header: &Header, input: &mut impl Read, clock: &mut Clock) -> Result<Answer> {
    let (n, k, m) = (header.indicators.len(), header.canary, header.stable);
    let parameters = Parameters {
        alpha: header.alpha,
        warmup_windows: header.warmup as u64,
        horizon_windows: header.horizon.unwrap_or(header.windows).max(1) as u64,
        ..Parameters::default()
    };
    let (threshold_ln, soak) = (parameters.threshold_ln(), parameters.soak_windows);
    let mut pace = Pace::new(parameters, &vec![Tolerance::default(); n]);
    let mut observe = |pace: &mut Pace, differences: Vec<Differences>, index: u64, phase: Phase| {
        let started = Instant::now();
        let frame = Frame { index, differences: &differences, canary_instances: k, stable_instances: m, phase };
        pace.observe(&frame);
        clock.spent += started.elapsed();
        clock.indicator_windows += n as u64;
    };

    // The stable history comes before the canary's own, though they are of the same time.
    let before = read_values(input, header.pre * n * m)?;
    let own = read_values(input, if header.own_pre { header.pre * n * k } else { 0 })?;
    for t in 0..header.pre {
        let differences = (0..n)
            .map(|i| {
                let canary = own.get((t * n + i) * k..(t * n + i + 1) * k).map_or(f64::NAN, mean_ln);
                let mut d = pair(&before[(t * n + i) * m..(t * n + i + 1) * m], canary);
                d.series[OWN] = std::mem::replace(&mut d.canary, f64::NAN);
                d
            })
            .collect();
        observe(&mut pace, differences, 0, Phase::Baseline);
    }

    let mut answer = Answer {
        id: header.id,
        verdict: "inconclusive",
        t: header.windows.saturating_sub(1),
        t_healthy: None,
        causes: Vec::new(),
    };
    for t in 0..header.windows {
        let window = read_values(input, n * (k + m))?;
        if answer.verdict == "regressed" {
            continue; // The rest of the scenario is still to be read.
        }
        let differences = window.chunks_exact(k + m).map(|v| pair(&v[k..], mean_ln(&v[..k]))).collect();
        let phase = if t < header.warmup { Phase::WarmUp } else { Phase::Judged };
        observe(&mut pace, differences, t as u64, phase);
        if phase != Phase::Judged {
            continue;
        }
        let evidence_ln = pace.evidence_ln(&[]);
        if evidence_ln >= threshold_ln {
            (answer.verdict, answer.t) = ("regressed", t);
            answer.causes = causes(&pace, &header.indicators);
        } else if answer.t_healthy.is_none()
            && pace.age() > soak
            && evidence_ln < 0.5 * threshold_ln
            && (0..n).all(|i| pace.is_healthy(i))
        {
            answer.t_healthy = Some(t);
        }
    }
    if answer.verdict == "inconclusive" {
        answer.causes = causes(&pace, &header.indicators);
        if answer.t_healthy.is_some() {
            answer.verdict = "healthy";
        }
    }
    Ok(answer)
}

fn read_values(input: &mut impl Read, count: usize) -> Result<Vec<f32>> {
    let mut bytes = vec![0u8; 4 * count];
    input.read_exact(&mut bytes).with_context(|| format!("read {count} readings from stdin"))?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn ln(value: f32) -> f64 {
    // `max` would turn NaN into a reading.
    if value.is_nan() { f64::NAN } else { f64::from(value).max(1e-9).ln() }
}

fn mean_ln(values: &[f32]) -> f64 {
    let (sum, n) = values.iter().map(|v| ln(*v)).filter(|x| !x.is_nan()).fold((0.0, 0.0), |(s, n), x| (s + x, n + 1.0));
    sum / n
}

fn pair(stable: &[f32], canary_mean: f64) -> Differences {
    let mut side = StableSide::default();
    for (j, value) in stable.iter().enumerate() {
        side.add((j < PLACEBOS).then_some(j), ln(*value));
    }
    side.pair(canary_mean)
}

/// The three indicators with the most evidence, the strongest first.
fn causes(pace: &Pace, names: &[String]) -> Vec<String> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|a, b| pace.indicator_evidence(*b).total_cmp(&pace.indicator_evidence(*a)));
    order.into_iter().take(3).map(|i| names[i].clone()).collect()
}
