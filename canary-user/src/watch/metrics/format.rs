//! The formats of the page, and which of them who asks takes (RFC 9110, 12.5.1).

use super::{
    catalogue::{CATALOGUE, Definition},
    protobuf,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' protobuf, the only one with native histograms.
    Protobuf,
    OpenMetrics,
    /// Prometheus' text format, 0.0.4: for scrapers that know no other, and for people with a browser, who are shown it.
    Text,
}

impl Format {
    /// The one that is liked best by `Accept`; of those that are liked alike, the one that tells more. OpenMetrics where nothing
    /// of this is asked for.
    pub fn wanted(accept: &str) -> Self {
        let (mut best, mut most) = (Format::OpenMetrics, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
            let get = |name: &str| {
                parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim_matches('"'))
            };
            let is_ours =
                get("proto") == Some("io.prometheus.client.MetricFamily") && get("encoding") == Some("delimited");
            let format = match kind.to_ascii_lowercase().as_str() {
                "application/vnd.google.protobuf" if is_ours => Format::Protobuf,
                "application/openmetrics-text" => Format::OpenMetrics,
                "text/plain" | "text/html" | "text/*" => Format::Text,
                _ => continue,
            };
            let quality: f64 = get("q").and_then(|q| q.parse().ok()).unwrap_or(1.0);
            let tells_more = quality == most && (format as u8) < (best as u8);
            if quality > 0.0 && (quality > most || tells_more) {
                (best, most) = (format, quality);
            }
        }
        best
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Protobuf => protobuf::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A page of OpenMetrics in the text format 0.0.4, in which a counter's family has the suffix of its series, and neither units
/// nor the end are told.
pub fn text(openmetrics: &str) -> String {
    let mut page = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(keyword), Some(family), Some(rest)) => {
                let known = CATALOGUE.iter().find(|d| d.family() == family);
                let name = known.map_or_else(|| family.to_owned(), Definition::page_name);
                page += &format!("# {keyword} {name} {rest}");
            }
            _ => page += line,
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{Format::*, *};

    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn each_is_for_who_likes_it_best() {
        // As Prometheus 2.42 asks with native histograms, and as it does without.
        let text = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (&*format!("{PROTOBUF},{text}"), Protobuf),
            (text, OpenMetrics),
            // As Prometheus 3 does: by falling quality.
            (&*format!("{PROTOBUF};q=0.6, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1"), Protobuf),
            (&*format!("{PROTOBUF};q=0.4, application/openmetrics-text;version=1.0.0;q=0.5"), OpenMetrics),
            (&*format!("text/plain;version=0.0.4;q=0.5, {PROTOBUF};q=0.5"), Protobuf),
            // As scrapers do that know the old format only, and a browser.
            ("text/plain; version=0.0.4", Text),
            ("TEXT/PLAIN", Text),
            ("text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.2,*/*;q=0.1", Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Text),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            ("text/plain;q=0", OpenMetrics),
            ("", OpenMetrics),
            ("*/*", OpenMetrics),
            ("application/vnd.google.protobuf", OpenMetrics),
            (&*format!("{PROTOBUF};q=0"), OpenMetrics),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", OpenMetrics),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }
}
