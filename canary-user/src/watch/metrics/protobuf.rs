//! The same series in Prometheus' own protobuf format, the only one that has native histograms.
//!
//! The messages are those of `io.prometheus.client` (github.com/prometheus/client_model), as far as the guard fills them.
//! The crate prometheus-client writes OpenMetrics' protobuf, which Prometheus does not take.

use prost::Message;

use super::{
    State,
    catalogue::{CATALOGUE, Definition, Kind, Labels, Value},
    counts::Distribution,
    native::{Native, SCHEMA, ZERO_THRESHOLD_S},
};

/// The content type of what [`encode`] writes.
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    pub r#type: i32,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<HistogramValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `Gauge` and `Counter`, which are alike.
#[derive(Clone, PartialEq, Message)]
pub struct Number {
    #[prost(double, tag = "1")]
    pub value: f64,
}

/// `Histogram`: classic buckets, for who takes no native ones, and the native ones.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramValue {
    #[prost(uint64, tag = "1")]
    pub sample_count: u64,
    #[prost(double, tag = "2")]
    pub sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub schema: i32,
    #[prost(double, tag = "6")]
    pub zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    #[prost(uint64, tag = "1")]
    pub cumulative_count: u64,
    #[prost(double, tag = "2")]
    pub upper_bound: f64,
}

#[derive(Clone, PartialEq, Message)]
pub struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// Every family that has a series, each after its length.
pub(super) fn encode(state: &State) -> Vec<u8> {
    let mut page = Vec::new();
    for definition in CATALOGUE {
        let series = definition.source.series(state);
        if !series.is_empty() {
            page.extend(family(definition, series).encode_length_delimited_to_vec());
        }
    }
    page
}

fn family(definition: &Definition, series: Vec<(Labels, Value<'_>)>) -> MetricFamily {
    let kind = match definition.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let metric = series.into_iter().map(|(labels, value)| {
        let pair = |(name, value): (&str, String)| LabelPair { name: name.to_owned(), value };
        let mut metric = Metric { label: labels.into_iter().map(pair).collect(), ..Metric::default() };
        match (definition.kind, value) {
            (Kind::Counter, Value::Number(value)) => metric.counter = Some(Number { value }),
            (_, Value::Number(value)) => metric.gauge = Some(Number { value }),
            (_, Value::Distribution(distribution)) => metric.histogram = Some(histogram(distribution)),
        }
        metric
    });
    let (name, help) = (definition.page_name(), definition.help.to_owned());
    MetricFamily { name, help, r#type: kind.into(), metric: metric.collect() }
}

fn histogram(distribution: &Distribution) -> HistogramValue {
    let native = Native::new(&distribution.fine);
    let cumulative = |sum: &mut u64, (upper_bound, n): (f64, u64)| {
        *sum += n;
        Some(Bucket { cumulative_count: *sum, upper_bound })
    };
    HistogramValue {
        sample_count: distribution.fine.count(),
        sample_sum: distribution.sum_ns as f64 / 1e9,
        bucket: distribution.coarse().into_iter().scan(0, cumulative).collect(),
        schema: SCHEMA,
        zero_threshold: ZERO_THRESHOLD_S,
        zero_count: native.zero_count,
        positive_span: native.spans.into_iter().map(|(offset, length)| BucketSpan { offset, length }).collect(),
        positive_delta: native.deltas,
    }
}
