//! Scenarios on stdin, one JSON verdict line each on stdout.
//!
//! Per scenario: one JSON header line, then raw little-endian f32, NaN for missing, larger is worse:
//! `pre x indicators x stable` before the canary, with `own_pre` also `pre x indicators x canary`,
//! then `windows x indicators x (canary + stable)`, canary instances first. It decides online: each window is read,
//! judged and forgotten.

use std::io::{BufRead, Read, Write};

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

/// Answers each scenario of the input as soon as its last reading is there, until the input ends.
pub fn serve(input: &mut impl BufRead, output: &mut impl Write) -> Result<()> {
    let mut line = String::new();
    while input.read_line(&mut line).context("read a header line from stdin")? > 0 {
        let header: Header = serde_json::from_str(&line).with_context(|| format!("parse header {line:?}"))?;
        let answer = judge(&header, input)?;
        serde_json::to_writer(&mut *output, &answer).context("write a verdict line to stdout")?;
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::service::{Change, IID, Service, Shape, Size};

    const SIZE: Size = Size {
        indicators: 3,
        canary: 1,
        stable: 3,
        before: 400,
        windows: 400,
        warmup: 60,
        own_past: false,
        earlier: 0,
    };
    /// Window of the canary at which it takes half as much memory again.
    const ONSET: usize = 160;

    /// What is sent of the first `windows` windows of a rollout. `more`: as ln, what the canary's instances take beyond stable's
    /// at all times.
    fn sent(id: u64, size: Size, change: Option<Change>, more: f64, windows: usize) -> Vec<u8> {
        let header = json!({
            "id": id, "indicators": ["cpu", "memory", "bytes"], "canary": size.canary, "stable": size.stable,
            "pre": size.before, "own_pre": size.own_past, "windows": windows, "horizon": size.windows, "window_s": 1.0,
            "warmup": size.warmup, "alpha": 0.001,
        });
        let bytes = |ln: f64| ((100.0 * libm::exp(ln)) as f32).to_le_bytes();
        let mut service = Service::new(IID, size, change, 5, 1);
        let mut readings = vec![0.0; size.indicators * service.instances()];
        let (mut before, mut own, mut rollout) = (Vec::new(), Vec::new(), Vec::new());
        for t in 0..size.before + windows {
            service.next(&mut readings);
            for row in readings.chunks_exact(size.canary + size.stable) {
                let (canary, stable) = row.split_at(size.canary);
                let canary = canary.iter().flat_map(|ln| bytes(ln + more));
                let stable = stable.iter().flat_map(|ln| bytes(*ln));
                if t >= size.before {
                    rollout.extend(canary.chain(stable));
                } else {
                    own.extend(canary);
                    before.extend(stable);
                }
            }
        }
        let own = if size.own_past { own } else { Vec::new() };
        [format!("{header}\n").into_bytes(), before, own, rollout].concat()
    }

    fn worse() -> Option<Change> {
        Some(Change { at: ONSET, parts: vec![(1, Shape::Step(0.5))] })
    }

    fn answers(input: &[u8]) -> Result<Vec<Value>> {
        let (mut input, mut output) = (input, Vec::new());
        serve(&mut input, &mut output)?;
        String::from_utf8(output)?.lines().map(|line| serde_json::from_str(line).context("an answer")).collect()
    }

    #[test]
    fn a_worse_canary_is_told_with_window_and_cause_and_scenarios_follow_each_other() -> Result<()> {
        let (bad, good) = (sent(7, SIZE, worse(), 0.0, SIZE.windows), sent(8, SIZE, None, 0.0, SIZE.windows));
        let answers = answers(&[&bad[..], &good, &bad].concat())?;
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert_eq!((&answers[0]["id"], &answers[0]["verdict"]), (&json!(7), &json!("regressed")), "{answers:?}");
        assert!(answers[0]["t"].as_u64() >= Some(ONSET as u64), "{answers:?}");
        assert_eq!(answers[0]["causes"][0], "memory");
        assert_eq!((&answers[1]["id"], &answers[1]["t"]), (&json!(8), &json!(SIZE.windows - 1)), "{answers:?}");
        assert_ne!(answers[1]["verdict"], "regressed");
        // What came between has left nothing behind.
        assert_eq!(answers[2], answers[0]);
        Ok(())
    }

    /// The verdict of a window rests on that window and those before it.
    #[test]
    fn a_scenario_that_is_cut_off_after_its_verdict_has_the_same_and_before_it_none() -> Result<()> {
        let whole = answers(&sent(1, SIZE, worse(), 0.0, SIZE.windows))?.remove(0);
        let t = whole["t"].as_u64().context("a window")? as usize;
        assert!(t < SIZE.windows - 1, "it does not end there by itself: {whole}");
        let [after, before] = [t + 1, t].map(|windows| sent(1, SIZE, worse(), 0.0, windows));
        let cut = answers(&[after, before].concat())?;
        assert_eq!(cut[0], whole);
        assert_eq!((&cut[1]["verdict"], &cut[1]["t"]), (&json!("inconclusive"), &json!(t - 1)));
        Ok(())
    }

    /// The canary always took half as much again: of an upgrade in place that is known.
    #[test]
    fn the_canarys_own_past_is_read_and_used() -> Result<()> {
        let own = Size { own_past: true, ..SIZE };
        let more = libm::log(1.5);
        let [with, without] = [own, SIZE].map(|size| sent(1, size, None, more, size.windows));
        let answers = answers(&[&with[..], &without, &with].concat())?;
        let verdicts: Vec<&Value> = answers.iter().map(|answer| &answer["verdict"]).collect();
        assert_eq!(verdicts[1], "regressed", "{answers:?}");
        assert_ne!(verdicts[0], "regressed", "{answers:?}");
        assert_eq!(verdicts[2], verdicts[0]);
        Ok(())
    }

    #[test]
    fn what_is_missing_is_not_a_reading() -> Result<()> {
        let mut input = sent(1, SIZE, worse(), 0.0, SIZE.windows);
        // All of the rollout.
        let rollout = 4 * SIZE.windows * SIZE.indicators * (SIZE.canary + SIZE.stable);
        let start = input.len() - rollout;
        input[start..].chunks_exact_mut(4).for_each(|reading| reading.copy_from_slice(&f32::NAN.to_le_bytes()));
        let answer = answers(&input)?.remove(0);
        assert_eq!((&answer["verdict"], &answer["t_healthy"]), (&json!("inconclusive"), &Value::Null), "{answer}");
        Ok(())
    }

    #[test]
    fn an_input_that_breaks_off_and_a_header_that_is_none_are_errors() {
        let input = sent(1, SIZE, None, 0.0, SIZE.windows);
        for (input, what) in [
            (&input[..input.len() - 5], "read 12 readings from stdin"),
            (&b"{\"id\":1}\n"[..], "parse header \"{\\\"id\\\":1}"),
        ] {
            let error = format!("{:#}", answers(input).expect_err(what));
            assert!(error.contains(what), "{error}");
        }
        assert!(answers(b"").expect("nothing to judge").is_empty());
    }
}
