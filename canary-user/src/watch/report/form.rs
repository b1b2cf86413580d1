//! A report in each of its forms, and which of them who asks takes (RFC 9110, 12.5.1).

use std::sync::Arc;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Evidence, Report, html, markdown};
use crate::{journal::Journal, watch::api::DecisionLife};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Html,
    Markdown,
    Json,
}

impl Format {
    const ALL: [Format; 3] = [Format::Html, Format::Markdown, Format::Json];

    /// The one that is liked best by `Accept`; HTML where none of them is named.
    pub fn wanted(accept: &str) -> Self {
        let (mut best, mut most) = (Format::Html, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let Some(format) = Format::ALL.into_iter().find(|f| f.media_type().eq_ignore_ascii_case(kind)) else {
                continue;
            };
            let quality = parts.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q=")));
            let quality: f64 = quality.and_then(|q| q.parse().ok()).unwrap_or(1.0);
            if quality > most {
                (best, most) = (format, quality);
            }
        }
        best
    }

    fn media_type(self) -> &'static str {
        match self {
            Format::Html => "text/html",
            Format::Markdown => "text/markdown",
            Format::Json => "application/json",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Markdown => "text/markdown; charset=utf-8",
            Format::Json => "application/json",
        }
    }
}

/// All that a report is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionReport {
    #[schema(value_type = DecisionLife)]
    pub decision: Arc<DecisionLife>,
    /// What it was decided on; null where that was too long ago to be kept.
    pub evidence: Option<Evidence>,
}

impl DecisionReport {
    /// What the journal has of the decision of this id, or of the latest one for `None`; `None` where there is no such decision.
    /// Evidence that cannot be read, as another version of the guard may have written it, is as good as none.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn recorded(journal: &Journal, id: Option<&str>) -> anyhow::Result<Option<Self>> {
        let Some(entry) = journal.decision(id)? else { return Ok(None) };
        let id = entry.decision.id.clone();
        let evidence = journal.evidence(&id)?.map(|json| serde_json::from_str(&json)).transpose();
        let evidence = evidence.unwrap_or_else(|error| {
            tracing::warn!("the report of {id} is without its evidence, which cannot be read: {error}");
            None
        });
        Ok(Some(Self { decision: Arc::new(entry.into()), evidence }))
    }

    /// The whole text in this form.
    pub fn text(&self, format: Format) -> String {
        let report = Report { life: &self.decision, evidence: self.evidence.as_ref() };
        match format {
            Format::Html => html(&report),
            Format::Markdown => markdown(&report),
            Format::Json => serde_json::to_string_pretty(self).expect("all keys of a report are text") + "\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_for_who_likes_it_best() {
        for (accept, format) in [
            ("", Format::Html),
            ("*/*", Format::Html),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Html),
            ("text/markdown", Format::Markdown),
            ("Application/JSON", Format::Json),
            ("text/html;q=0.4, text/markdown; q=0.9, application/json;q=0.5", Format::Markdown),
            ("application/json, text/html", Format::Json),
            ("application/json;q=0", Format::Html),
            ("image/png", Format::Html),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }
}
