mod held;
mod own;
mod text;

use std::collections::BTreeMap;

use canary_common::histogram;
use prost::Message as _;

use super::{protobuf::MetricFamily, *};
use crate::{guard::GateResult, telemetry::Histogram, watch::story};

/// A page read back: values by "name{labels}", types and units by family, checked for the format's own rules.
#[derive(Debug, Default)]
struct Page {
    values: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
    units: BTreeMap<String, String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        assert!(text.ends_with("# EOF\n"), "the page ends with EOF");
        for line in text.lines().filter(|l| *l != "# EOF") {
            if let Some(rest) = line.strip_prefix("# ") {
                let (keyword, rest) = rest.split_once(' ').expect("keyword");
                let (family, value) = rest.split_once(' ').expect("family and value");
                let map = match keyword {
                    "TYPE" => &mut page.types,
                    "UNIT" => &mut page.units,
                    "HELP" => continue,
                    other => panic!("unknown keyword {other}"),
                };
                assert!(map.insert(family.to_owned(), value.to_owned()).is_none(), "{family}: {keyword} once only");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(page.values.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
        for (family, unit) in &page.units {
            assert!(family.ends_with(&format!("_{unit}")), "{family} ends in its unit {unit}");
        }
        page
    }

    fn get(&self, series: &str) -> f64 {
        let family = series.split('{').next().unwrap_or(series);
        let near = || self.values.keys().filter(|k| k.starts_with(family)).collect::<Vec<_>>();
        *self.values.get(series).unwrap_or_else(|| panic!("{series} is missing, there is {:#?}", near()))
    }

    fn has_family(&self, name: &str) -> bool {
        self.values.keys().any(|k| k == name || k.starts_with(&format!("{name}{{")))
    }
}

fn page(metrics: impl FnOnce(&Metrics)) -> Page {
    let handle = Metrics::default();
    metrics(&handle);
    Page::read(&handle.openmetrics().expect("encodes"))
}

const STABLE: &str = r#"deployment="checkout",role="stable",version="v1.4.2""#;
const CANARY: &str = r#"deployment="checkout",role="canary",version="v1.5.0""#;

#[test]
fn counts_add_up_over_ticks_and_instances() {
    let page = page(|m| (0..3).for_each(|i| m.record(&story::snapshot(i))));
    // Three ticks of two instances with 40 ms each, and of one.
    let near = |series: String, want: f64| {
        let got = page.get(&series);
        assert!((got - want).abs() < 1e-9, "{series} is {got}, not {want}");
    };
    near(format!("canary_cpu_usage_seconds_total{{{STABLE}}}"), 0.240);
    near(format!("canary_cpu_usage_seconds_total{{{CANARY}}}"), 0.120);
    near(format!("canary_network_transmit_bytes_total{{{STABLE}}}"), 2_400_000.0);
    near(format!("canary_pressure_cpu_waiting_seconds_total{{{CANARY}}}"), 0.006);
    near(format!("canary_tcp_resets_received_total{{{STABLE}}}"), 6.0);
    near(format!("canary_process_exits_total{{{CANARY},kind=\"ok\"}}"), 6.0);
    near(format!("canary_process_exits_total{{{CANARY},kind=\"crash\"}}"), 3.0);
    near(format!("canary_oom_kills_total{{{CANARY}}}"), 0.0);
    // A level is summed over instances, not over ticks.
    near(format!("canary_memory_in_use_bytes{{{STABLE}}}"), 2.0 * f64::from(120 << 20));
    near(format!("canary_targets{{{STABLE}}}"), 2.0);
    near("canary_ticks_total".to_owned(), 3.0);
}

/// Of four exits one is an error, one a crash, and one the OOM killer's.
#[test]
fn an_oom_kill_is_a_kill_and_not_an_exit_with_status_0() {
    let mut snapshot = story::snapshot(0);
    let view = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
    for sample in &mut view.samples {
        sample.oom_kills = Some(1);
    }
    let page = page(|m| m.record(&snapshot));
    for kind in ["ok", "status", "crash", "killed"] {
        assert_eq!(page.get(&format!("canary_process_exits_total{{{CANARY},kind=\"{kind}\"}}")), 1.0, "{kind}");
    }
    assert_eq!(page.get(&format!("canary_oom_kills_total{{{CANARY}}}")), 1.0);
}

#[test]
fn what_was_not_measured_is_absent() {
    let mut snapshot = story::snapshot(0);
    let view = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
    for sample in &mut view.samples {
        sample.cpu = None;
        sample.oom_kills = None;
    }
    view.samples[1].memory = None;
    view.verdict.evidence_ln = f64::NAN;
    let absent = page(|m| m.record(&snapshot));
    for family in [
        "canary_cpu_usage_seconds_total",
        "canary_run_queue_wait_seconds_count",
        "canary_oom_kills_total",
        "canary_cpu_cfs_periods_total",
        "canary_p",
        "canary_evidence_log",
    ] {
        assert!(!absent.has_family(family), "{family} was not measured");
    }
    assert!(!absent.values.contains_key(&format!("canary_memory_in_use_bytes{{{STABLE}}}")), "one of two is unknown");
    assert!(absent.values.contains_key(&format!("canary_memory_in_use_bytes{{{CANARY}}}")));
    assert!(
        !absent.types.contains_key("canary_oom_kills"),
        "a family without series is not announced: {:?}",
        absent.types
    );

    view_with_throttling(&mut snapshot);
    let present = page(|m| m.record(&snapshot));
    assert_eq!(present.get(&format!("canary_cpu_cfs_throttled_periods_total{{{CANARY}}}")), 3.0);
    assert!(!page(|_| ()).has_family("canary_lost_events_total"), "nothing is known before the first tick");
}

fn view_with_throttling(snapshot: &mut Snapshot) {
    for sample in snapshot.deployments.values_mut().flat_map(|v| &mut v.samples) {
        sample.throttling = Some(story::throttling());
    }
}

#[test]
fn coarse_buckets_are_exact_sums_of_fine_ones() {
    let values_ns = [1, 1 << 12, (1 << 12) + 1, 1 << 20, (1 << 20) + 1, 3_000_000, 1 << 34, (1 << 34) + 1, u64::MAX];
    let mut fine = Histogram::default();
    for ns in values_ns {
        fine.merge(&Histogram(vec![(histogram::bucket(ns) as u16, 1)]));
    }
    let coarse = counts::Distribution { sum_ns: 0, fine }.coarse();
    let mut cumulative = 0;
    for (bound, n) in coarse {
        cumulative += n;
        let want = values_ns.iter().filter(|ns| **ns as f64 / 1e9 <= bound).count() as u64;
        assert_eq!(cumulative, want, "values up to and including {bound} s");
    }
}

#[test]
fn histograms_keep_the_rules_of_the_format() {
    let page = page(|m| (0..2).for_each(|i| m.record(&story::snapshot(i))));
    for (family, sum) in [("canary_turnaround_seconds", 2.0 * 0.45), ("canary_run_queue_wait_seconds", 0.008)] {
        let count = page.get(&format!("{family}_count{{{CANARY}}}"));
        assert_eq!(page.get(&format!("{family}_bucket{{le=\"+Inf\",{CANARY}}}")), count);
        assert!((page.get(&format!("{family}_sum{{{CANARY}}}")) - sum).abs() < 1e-9);
        assert_eq!(page.types[family], "histogram");
        let buckets =
            page.values.iter().filter(|(k, _)| k.starts_with(&format!("{family}_bucket")) && k.contains(CANARY));
        assert!(buckets.clone().all(|(_, n)| *n <= count));
        assert_eq!(buckets.count(), 24);
    }
}

#[test]
fn the_comparison_is_told() {
    let page = page(|m| (0..story::WINDOWS).for_each(|i| m.record(&story::snapshot(i))));
    let d = r#"deployment="checkout""#;
    assert_eq!(page.get(&format!("canary_verdict{{{d},state=\"regressed\"}}")), 1.0);
    assert_eq!(page.get(&format!("canary_verdict{{{d},state=\"insufficient_data\"}}")), 0.0);
    assert_eq!(page.get(&format!("canary_decisions_total{{{d},action=\"rollback\"}}")), 1.0);
    assert_eq!(page.get(&format!("canary_actions_total{{{d},result=\"verified\"}}")), 1.0);
    assert_eq!(page.get(&format!("canary_evidence_threshold_log{{{d}}}")), 1000f64.ln());
    assert!(!page.values.contains_key(&format!("canary_p{{{d},role=\"canary\"}}")), "the canary is gone");
    assert!(!page.values.contains_key(&format!("canary_targets{{{CANARY}}}")));
    assert!(page.has_family("canary_indicator_margin_ratio"));
    let change = |bound: &str| {
        page.get(&format!("canary_indicator_effect{bound}_ratio{{{d},role=\"canary\",indicator=\"cpu_per_work\"}}"))
    };
    let (low, effect, high) = (change("_low"), change(""), change("_high"));
    assert!(low < effect && effect < high && effect > 0.2, "{low} {effect} {high}");
    let of_stable = format!("canary_indicator_effect_low_ratio{{{d},role=\"stable\",indicator=\"cpu_per_work\"}}");
    assert!(!page.values.contains_key(&of_stable), "stable is what is compared with");
    let cpu = page.get(&format!("canary_indicator{{{d},role=\"stable\",indicator=\"cpu_per_work\"}}"));
    assert!((70e-6..90e-6).contains(&cpu), "80 µs in seconds, not {cpu}");
}

/// `canary_action_withheld` and `canary_action_in_effect` of the story at its decision, changed.
fn standing(change: impl FnOnce(&mut DeploymentView)) -> (f64, f64) {
    let mut snapshot = story::snapshot(story::DECIDED);
    change(snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment"));
    let page = page(|m| m.record(&snapshot));
    let get = |name: &str| page.get(&format!("{name}{{deployment=\"checkout\"}}"));
    (get("canary_action_withheld"), get("canary_action_in_effect"))
}

fn held_back_by(view: &mut DeploymentView, gate: &str) {
    let decision = view.decision.as_mut().expect("decided");
    decision.stage = Stage::Blocked;
    decision.detail = format!("{gate}: no");
    decision.decision.gates.push(GateResult { gate: gate.to_owned(), passed: false, reason: "no".to_owned() });
}

#[test]
fn what_the_guard_only_says_is_told_while_the_canary_is_condemned() {
    assert_eq!(standing(|_| ()), (0.0, 0.0), "it is being done");
    assert_eq!(standing(|view| held_back_by(view, gates::MODE)), (1.0, 0.0), "the mode, or a policy");
    assert_eq!(standing(|view| held_back_by(view, "pause")), (0.0, 0.0), "it may, later");
    let in_a_dry_run = |view: &mut DeploymentView| {
        let decision = view.decision.as_mut().expect("decided");
        (decision.stage, decision.detail) = (Stage::Blocked, format!("{}: would roll back", dry_run::SAID));
    };
    assert_eq!(standing(in_a_dry_run), (1.0, 0.0));
    let over = |view: &mut DeploymentView| {
        held_back_by(view, gates::MODE);
        view.verdict.outcome = Outcome::Healthy;
    };
    assert_eq!(standing(over), (0.0, 0.0), "another canary is in its place");
}

#[test]
fn what_was_done_is_told_for_as_long_as_it_holds() {
    for (stage, action, holds) in [
        (Stage::Applied, Action::Rollback, 0.0),
        (Stage::Verified, Action::Rollback, 1.0),
        (Stage::Verified, Action::Quarantine, 0.0),
        (Stage::Verified, Action::Hold, 0.0),
        (Stage::Recovered, Action::Drain, 1.0),
        (Stage::NotRecovered, Action::Drain, 1.0),
        (Stage::Closed, Action::Rollback, 1.0),
        (Stage::Reverted, Action::Rollback, 0.0),
        (Stage::Undone, Action::Rollback, 0.0),
    ] {
        let told = standing(|view| {
            let decision = view.decision.as_mut().expect("decided");
            (decision.stage, decision.decision.action) = (stage, action);
        });
        assert_eq!(told, (0.0, holds), "{action} {}", stage.name());
    }
}

#[test]
fn a_stretch_is_shown_while_it_goes_on_and_counted_once_when_it_is_over() {
    let metrics = Metrics::default();
    let page = || Page::read(&metrics.openmetrics().expect("encodes"));
    let d = r#"deployment="checkout""#;
    let active = |role: &str| format!("canary_stretch_active{{{d},role=\"{role}\",indicator=\"cpu_per_work\"}}");
    let over = |shape: &str| format!("canary_stretches_total{{{d},role=\"canary\",shape=\"{shape}\"}}");
    metrics.record(&story::snapshot(story::ONSET));
    assert_eq!((page().get(&active("canary")), page().get(&over("step"))), (0.0, 0.0));
    let mut snapshot = story::snapshot(story::DECIDED);
    metrics.record(&snapshot);
    assert_eq!((page().get(&active("canary")), page().get(&active("stable"))), (1.0, 0.0));
    assert_eq!(page().get(&over("step")), 0.0, "it goes on");
    let stretches = &mut snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's").verdict.stretches;
    stretches[0].end = Some(story::DECIDED);
    (0..3).for_each(|_| metrics.record(&snapshot));
    let page = page();
    assert_eq!((page.get(&active("canary")), page.get(&over("step")), page.get(&over("burst"))), (0.0, 1.0, 0.0));
    let missing = page.values.keys().find(|k| k.starts_with("canary_stretch_active") && k.contains("memory_stall"));
    assert_eq!(missing, None, "without a reading there is none to be 0");
}

#[test]
fn protobuf_tells_what_the_text_does_and_histograms_natively_too() {
    let metrics = Metrics::default();
    (0..3).for_each(|i| metrics.record(&story::snapshot(i)));
    let text = Page::read(&metrics.openmetrics().expect("encodes"));
    let (page, mut told, mut natives) = (metrics.protobuf(), 0, 0);
    let mut rest = &page[..];
    while !rest.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut rest).expect("a family");
        for metric in &family.metric {
            let labels: Vec<String> = metric.label.iter().map(|l| format!("{}=\"{}\"", l.name, l.value)).collect();
            let series = |suffix: &str| match &labels[..] {
                [] => format!("{}{suffix}", family.name),
                labels => format!("{}{suffix}{{{}}}", family.name, labels.join(",")),
            };
            if let Some(h) = &metric.histogram {
                assert_eq!(text.get(&series("_count")), h.sample_count as f64);
                assert_eq!(text.get(&series("_sum")), h.sample_sum);
                assert_eq!(h.bucket.last().expect("buckets").cumulative_count, h.sample_count);
                let deltas = h.positive_delta.iter();
                let counts = deltas.scan(0, |count, delta| Some(std::mem::replace(count, *count + delta) + delta));
                assert_eq!(counts.sum::<i64>().cast_unsigned() + h.zero_count, h.sample_count, "{}", series(""));
                let length: u32 = h.positive_span.iter().map(|s| s.length).sum();
                assert_eq!(length as usize, h.positive_delta.len());
                natives += h.positive_delta.len();
                told += h.bucket.len() + 2;
            } else {
                let number = metric.counter.as_ref().or(metric.gauge.as_ref()).expect("a number");
                assert_eq!(text.get(&series("")), number.value);
                assert_eq!(metric.counter.is_some(), family.name.ends_with("_total"), "{}", family.name);
                told += 1;
            }
        }
    }
    assert_eq!(told, text.values.len(), "every series, and no other");
    assert!(natives > 3, "{natives} native buckets");
}

#[test]
fn labels_are_bounded_and_counters_forget_what_is_long_gone() {
    let metrics = Metrics::default();
    metrics.record(&story::snapshot(0));
    let text = metrics.openmetrics().expect("encodes");
    assert!(!text.contains("slice") && !text.contains("4001"), "no cgroup path, no incarnation");
    let mut later = story::snapshot(story::GONE);
    later.t_ns += FORGET_AFTER_NS;
    metrics.record(&later);
    let text = metrics.openmetrics().expect("encodes");
    assert!(text.contains(STABLE) && !text.contains(CANARY), "the version gone for an hour is dropped");
}

/// The story at a window, with all that can be measured.
fn all_measured(index: u64) -> Snapshot {
    let mut snapshot = story::snapshot(index);
    view_with_throttling(&mut snapshot);
    let samples = snapshot.deployments.values_mut().flat_map(|view| &mut view.samples);
    samples.for_each(story::measure_all);
    for view in snapshot.deployments.values_mut() {
        view.verdict.promotion = Some(crate::judge::Promotion {
            since: Some(10),
            windows: 20,
            of_windows: 3600,
            worse: true,
            evidence_ln: 7.0,
            indicators: Vec::new(),
            text: "stable is worse".to_owned(),
        });
    }
    snapshot
}

#[test]
fn a_pause_the_lead_and_a_failed_journal_are_told() {
    let told = |change: fn(&mut Snapshot)| {
        let mut snapshot = story::snapshot(0);
        change(&mut snapshot);
        let page = page(|m| m.record(&snapshot));
        let of_deployment = |name: &str| page.get(&format!("{name}{{deployment=\"checkout\"}}"));
        (of_deployment("canary_paused"), of_deployment("canary_leader"), page.get("canary_journal_failed"))
    };
    assert_eq!(told(|_| ()), (0.0, 1.0, 0.0));
    assert_eq!(told(|s| s.paused = Some("incident 12".to_owned())), (1.0, 1.0, 0.0));
    assert_eq!(told(|s| s.deployments.values_mut().for_each(|d| d.paused = Some("12".to_owned()))), (1.0, 1.0, 0.0));
    assert_eq!(told(|s| s.deployments.values_mut().for_each(|d| d.leads = false)), (0.0, 0.0, 0.0));
    assert_eq!(told(|s| s.journal_failure = Some("disk full".to_owned())), (0.0, 1.0, 1.0));
    // And that a pause ends.
    let mut paused = story::snapshot(0);
    paused.deployments.values_mut().for_each(|d| d.paused = Some("12".to_owned()));
    let page = page(|m| [paused, story::snapshot(1)].iter().for_each(|s| m.record(s)));
    assert_eq!(page.get("canary_paused{deployment=\"checkout\"}"), 0.0);
}

#[test]
fn a_gate_that_blocks_after_a_wait_for_approval_is_counted() {
    let stage = |stage, gates: &[(&str, bool)]| {
        let mut snapshot = story::snapshot(story::DECIDED);
        let view = snapshot.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
        let gate = |(gate, passed): &(&str, bool)| GateResult {
            gate: (*gate).to_owned(),
            passed: *passed,
            reason: "so it is".to_owned(),
        };
        (view.stage, view.decision.gates) = (stage, gates.iter().map(gate).collect());
        snapshot
    };
    let waits = stage(Stage::Planned, &[("mode", true), ("approval", false)]);
    let approved = stage(Stage::Approved, &[("mode", true), ("approval", false)]);
    let blocked = stage(Stage::Blocked, &[("mode", true), ("pause", false)]);
    let page = page(|m| [waits, approved, blocked.clone(), blocked].iter().for_each(|s| m.record(s)));
    let blocks = |gate: &str| page.get(&format!("canary_gate_blocks_total{{deployment=\"checkout\",gate=\"{gate}\"}}"));
    assert_eq!((blocks("approval"), blocks("pause")), (1.0, 1.0));
}

#[test]
fn a_version_and_a_deployment_have_no_more_series_than_operations_says() {
    let mut snapshot = all_measured(story::DECIDED);
    let verdict = &mut snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").verdict;
    let read = verdict.indicators[0].clone();
    for state in &mut verdict.indicators {
        *state = crate::judge::IndicatorState { indicator: state.indicator, ..read.clone() };
    }
    let page = page(|m| m.record(&snapshot));
    let operations = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md"));
    let operations = operations.expect("docs/operations.md");

    // Exit codes are told by themselves: how many there are is up to the service.
    let counted = |series: &&String| series.contains(CANARY) && !series.starts_with("canary_process_exit_codes_total");
    let version = page.values.keys().filter(counted).count();
    let families = describe();
    let own: Vec<&Description> = families.iter().filter(|d| d.labels == ["deployment", "role", "version"]).collect();
    let histograms = own.iter().filter(|d| d.kind == "histogram").count();
    let plain = own.len() - histograms;
    let labelled = version - plain - 26 * histograms;
    let said = format!(
        "A version has at most {version} series: {plain} plain ones, {labelled} with one label more, and {histograms} histograms of 26"
    );
    assert!(operations.contains(&said), "docs/operations.md, Metrics, does not say: {said}");

    // A gate has a series once it held something back.
    let gates = crate::guard::gates::GATES.len();
    let besides = |series: &&String| series.contains("deployment=") && !series.contains("version=");
    let deployment = page.values.keys().filter(besides).count() + gates;
    assert!(deployment <= 132, "{deployment} series of a deployment");
    assert!(operations.contains("A deployment has at most 132 besides"), "docs/operations.md, Metrics");
}

#[test]
fn the_description_has_a_unit_and_a_sentence_for_every_series() {
    let described = describe();
    for Description { name, unit, help, .. } in &described {
        assert!(help.ends_with('.') && help.len() > 15, "{name}: {help}");
        assert!(!unit.is_empty(), "{name}: in what?");
        assert!(name.starts_with("canary_") && described.iter().filter(|d| d.name == *name).count() == 1, "{name}");
    }
    let snapshot = all_measured(story::DECIDED + 8);
    let mut blocked = snapshot.clone();
    let decision = blocked.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
    decision.decision.id = "another".to_owned();
    let gate = GateResult { gate: "pause".to_owned(), passed: false, reason: "paused".to_owned() };
    decision.decision.gates.push(gate);
    let deliveries = crate::watch::notify::Deliveries::default();
    deliveries.count("slack", "sent");
    let page = page(|m| {
        m.tell_of(deliveries);
        m.tell_of_reports(crate::watch::report::Counts::default());
        m.record(&snapshot);
        m.record(&blocked);
    });
    assert_eq!(page.get("canary_promotion_worse{deployment=\"checkout\"}"), 1.0);
    assert_eq!(page.get("canary_gate_blocks_total{deployment=\"checkout\",gate=\"pause\"}"), 1.0);
    assert_eq!(page.get("canary_notifications_total{receiver=\"slack\",result=\"sent\"}"), 1.0);
    assert_eq!(
        page.get("canary_reports_total{result=\"failed\"}"),
        0.0,
        "from 0 on, so that a rate sees the first one"
    );
    let counted = page.get(&format!("canary_process_exit_codes_total{{{STABLE},code=\"signal_11\"}}"));
    assert_eq!(counted, page.get(&format!("canary_http_responses_total{{{STABLE},class=\"5xx\"}}")));
    for Description { name, unit, labels, .. } in &described {
        let named = [name.clone(), format!("{name}_count")];
        let family = name.trim_end_matches("_total");
        let told = page.units.get(family).map(String::as_str);
        assert_eq!(told, Some(*unit).filter(|unit| family.ends_with(&format!("_{unit}"))), "the unit of {family}");
        let mut series = page.values.keys().filter(|k| named.iter().any(|n| k.split('{').next() == Some(n))).peekable();
        assert!(series.peek().is_some(), "{name} is described but not on a full page");
        for one in series {
            let pairs = one.split_once('{').map_or("", |(_, pairs)| pairs.trim_end_matches('}'));
            let told: Vec<&str> = pairs.split(',').filter_map(|p| p.split_once('=')).map(|(label, _)| label).collect();
            assert_eq!(told, *labels, "{one}");
        }
    }
}

#[test]
fn the_help_of_the_indicators_says_which_are_not_in_seconds() {
    let mut snapshot = story::snapshot(story::DECIDED);
    let verdict = &mut snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").verdict;
    verdict.indicators.iter_mut().for_each(|i| i.stable = Some(1e9));
    let names: Vec<&str> = verdict.indicators.iter().map(|i| i.indicator.name()).collect();
    let page = page(|m| m.record(&snapshot));
    let described = describe();
    let help = described.iter().find(|d| d.name == "canary_indicator").expect("described").help;
    for name in names {
        let value =
            page.get(&format!("canary_indicator{{deployment=\"checkout\",role=\"stable\",indicator=\"{name}\"}}"));
        assert_eq!(value != 1.0, help.contains(name), "{name} is {value}, where a second is 1; {help}");
    }
}
