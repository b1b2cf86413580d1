//! `[judge]` and `[deployment.indicator]`: every number of the judge, by the names in [`settings`].

use std::{collections::BTreeMap, fmt, ops::Range};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};
use crate::{
    judge::{
        Parameters,
        settings::{self, IndicatorKey, Kind, SETTINGS, Setting},
    },
    window::Indicator,
};

/// Indicator to key to value, as written.
pub(super) type RawIndicators = BTreeMap<Spanned<String>, BTreeMap<Spanned<String>, Spanned<toml::Value>>>;

/// The table as written. Which keys there are is asked later, of the judge itself.
#[derive(Default)]
pub(super) struct RawJudge {
    settings: Vec<(Spanned<String>, Spanned<toml::Value>)>,
    indicators: RawIndicators,
}

const INDICATOR: &str = "indicator";
/// By how much a sum of what is written in decimals may miss it.
const ROUNDING: f64 = 1e-9;

impl<'de> Deserialize<'de> for RawJudge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = RawJudge;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawJudge, A::Error> {
                let mut raw = RawJudge::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    if key.as_ref() == INDICATOR {
                        raw.indicators = map.next_value()?;
                    } else {
                        raw.settings.push((key, map.next_value()?));
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl Source<'_> {
    pub(super) fn judge(&self, raw: RawJudge, prefix: &str) -> Result<Parameters, ConfigError> {
        let mut parameters = Parameters::default();
        for (key, value) in raw.settings {
            let Some(setting) = SETTINGS.iter().find(|s| s.key == key.as_ref()) else {
                let known = SETTINGS.iter().map(|s| s.key).chain([INDICATOR]);
                return Err(self.unknown_key(key.span(), key.as_ref(), known.map(str::to_owned).collect()));
            };
            let values = self.setting(setting, &format!("{prefix}.{}", setting.key), &value)?;
            setting.apply(&mut parameters, &values);
        }
        self.indicators(raw.indicators, prefix, &mut parameters)?;
        Ok(parameters)
    }

    pub(super) fn indicators(
        &self,
        raw: RawIndicators,
        prefix: &str,
        parameters: &mut Parameters,
    ) -> Result<(), ConfigError> {
        for (name, keys) in raw {
            let Some(indicator) = settings::indicator_named(name.as_ref()) else {
                let known = Indicator::ALL.map(|i| i.name().to_owned()).to_vec();
                return Err(self.unknown_key(name.span(), name.as_ref(), known));
            };
            for (key, value) in keys {
                let Some(known) = IndicatorKey::ALL.into_iter().find(|k| k.name() == key.as_ref()) else {
                    let known = IndicatorKey::ALL.map(|k| k.name().to_owned()).to_vec();
                    return Err(self.unknown_key(key.span(), key.as_ref(), known));
                };
                let set = &mut parameters.indicators[indicator as usize];
                known.apply(set, value.as_ref()).map_err(|write| {
                    let mistake = Mistake::NotAllowed { value: value.as_ref().to_string(), write };
                    self.mistake(
                        value.span(),
                        format!("{prefix}.indicator.{}.{}", name.as_ref(), key.as_ref()),
                        mistake,
                    )
                })?;
            }
        }
        Ok(())
    }

    fn setting(&self, setting: &Setting, key: &str, raw: &Spanned<toml::Value>) -> Result<Vec<f64>, ConfigError> {
        let wrong = |expected: &str| {
            let message = format!("invalid type: {} `{}`, expected {expected}", raw.as_ref().type_str(), raw.as_ref());
            self.mistake(raw.span(), key, Mistake::WrongType { message })
        };
        let number = |value: &toml::Value| match (value, setting.kind) {
            (toml::Value::Integer(n), _) => Some(*n as f64),
            (toml::Value::Float(v), Kind::Number | Kind::Shares(_)) => Some(*v),
            _ => None,
        };
        let values = match (setting.kind, raw.as_ref()) {
            (Kind::Shares(n), toml::Value::Array(list)) => {
                let expected = format!("{n} numbers");
                let values: Option<Vec<f64>> = list.iter().map(number).collect();
                values.filter(|v| v.len() == n).ok_or_else(|| wrong(&expected))?
            }
            (Kind::Shares(n), _) => return Err(wrong(&format!("{n} numbers"))),
            (Kind::Number, value) => vec![number(value).ok_or_else(|| wrong("a number"))?],
            (Kind::Whole, value) => vec![number(value).ok_or_else(|| wrong("a whole number"))?],
        };
        // Written so that NaN, which compares as false, is refused too.
        if let Some(value) = values.iter().find(|v| !(**v >= setting.least && **v <= setting.most)) {
            let mistake = Mistake::OutOfRange {
                value: value.to_string(),
                least: setting.least.to_string(),
                most: setting.most.to_string(),
            };
            return Err(self.mistake(raw.span(), key, mistake));
        }
        if matches!(setting.kind, Kind::Shares(_)) && values.iter().sum::<f64>() > 1.0 + ROUNDING {
            let write = "numbers that sum to at most 1: they are shares of one stake".to_owned();
            let mistake = Mistake::NotAllowed { value: raw.as_ref().to_string(), write };
            return Err(self.mistake(raw.span(), key, mistake));
        }
        Ok(values)
    }

    pub(super) fn unknown_key(&self, span: Range<usize>, key: &str, known: Vec<String>) -> ConfigError {
        let nearest = known
            .iter()
            .map(|k| (strsim::normalized_damerau_levenshtein(key, k), k))
            .filter(|(likeness, _)| *likeness >= 0.5)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, k)| k.clone());
        self.mistake(span, key, Mistake::UnknownKey { nearest, known })
    }
}

/// `KEY=VALUE` pairs as in `[judge]`, on top of `parameters`: "alpha=0.01", "indicator.cpu_per_work.delta=0.05".
///
/// # Errors
/// The first pair that is no setting or out of range, and what may be written.
pub fn what_if(parameters: &Parameters, pairs: &[String]) -> anyhow::Result<Parameters> {
    // All that is set already, then the pairs: the last one holds.
    let mut lines: BTreeMap<String, String> = SETTINGS
        .iter()
        .map(|s| (s.key.to_owned(), s.value(parameters).to_string()))
        .chain(Indicator::ALL.into_iter().flat_map(|i| {
            IndicatorKey::ALL.map(|key| {
                let value = key.value(&parameters.indicators[i as usize]).to_string();
                (format!("{INDICATOR}.{}.{}", i.name(), key.name()), value)
            })
        }))
        .collect();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            anyhow::bail!("--what-if {pair}: write KEY=VALUE, such as alpha=0.01");
        };
        let (key, value) = (key.trim(), value.trim());
        // A word needs no quotes on the command line, and a list no brackets.
        let value =
            if value.contains(',') && !value.starts_with('[') { format!("[{value}]") } else { value.to_owned() };
        let is_toml = toml::from_str::<toml::Table>(&format!("x = {value}")).is_ok();
        lines.insert(key.to_owned(), if is_toml { value } else { toml::Value::from(value).to_string() });
        let text: String = lines.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        let source = Source { text: &text, origin: "--what-if".into() };
        let said = |e: ConfigError| match e.key.as_str() {
            "" => anyhow::anyhow!("--what-if {pair}: {}", e.mistake),
            key => anyhow::anyhow!("--what-if {pair}: {key}: {}", e.mistake),
        };
        let raw: RawJudge = toml::from_str(&text).map_err(|e| said(source.refused(&e)))?;
        source.judge(raw, "judge").map_err(said)?;
    }
    let text: String = lines.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
    let source = Source { text: &text, origin: "--what-if".into() };
    Ok(source.judge(toml::from_str(&text)?, "judge")?)
}

/// `[judge]` with every key.
pub(super) fn write_judge(f: &mut fmt::Formatter<'_>, p: &Parameters) -> fmt::Result {
    writeln!(f, "\n[judge]")?;
    for setting in SETTINGS {
        writeln!(f, "{} = {}", setting.key, setting.value(p))?;
    }
    writeln!(f, "\n[judge.{INDICATOR}]")?;
    for indicator in Indicator::ALL {
        writeln!(f, "{} = {}", indicator.name(), settings::indicator_table(&p.indicators[indicator as usize]))?;
    }
    Ok(())
}

/// The indicators that a deployment sets otherwise than `[judge]`, as an inline table.
pub(super) fn differences(global: &Parameters, own: &Parameters) -> Option<String> {
    let pairs: Vec<String> = Indicator::ALL
        .into_iter()
        .filter(|i| global.indicators[*i as usize] != own.indicators[*i as usize])
        .map(|i| format!("{} = {}", i.name(), settings::indicator_table(&own.indicators[i as usize])))
        .collect();
    (!pairs.is_empty()).then(|| format!("{{ {} }}", pairs.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        judge::{Direction, Missing},
    };

    const DEPLOYMENT: &str =
        "[[deployment]]\nname = \"a\"\nstable = { cgroup = \"/a/1\" }\ncanary = { cgroup = \"/a/2\" }\n";

    fn parse(judge: &str, deployment: &str) -> Result<Config, String> {
        Config::parse(&format!("[judge]\n{judge}\n{DEPLOYMENT}{deployment}\n"), "c.toml").map_err(|e| e.to_string())
    }

    #[test]
    fn every_setting_is_taken_at_both_ends_and_refused_beyond_them() {
        for setting in SETTINGS {
            let written = |v: f64| match setting.kind {
                Kind::Whole => format!("{} = {v:.0}", setting.key),
                Kind::Number => format!("{} = {v:?}", setting.key),
                Kind::Shares(n) => format!("{} = [{v:?}{}]", setting.key, ", 0.0".repeat(n - 1)),
            };
            for end in [setting.least, setting.most] {
                let taken = parse(&written(end), "").unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(taken.deployments[0].judge, taken.judge);
                let given: toml::Table = toml::from_str(&written(end)).expect("TOML");
                assert_eq!(setting.value(&taken.judge), given[setting.key], "{setting:?} {end}");
            }
            let refused = parse(&written(setting.most * 2.0 + 1.0), "").expect_err("beyond");
            assert!(
                refused.contains(&format!("judge.{}: ", setting.key)) && refused.contains("out of range"),
                "{refused}"
            );
            let refused = parse(&format!("{} = \"x\"", setting.key), "").expect_err("a word");
            assert!(refused.contains("invalid type: string `\"x\"`, expected"), "{refused}");
        }
        let refused = parse("bet_shares = [0.1]", "").expect_err("one");
        assert!(refused.ends_with("judge.bet_shares: invalid type: array `[0.1]`, expected 4 numbers"), "{refused}");
        assert!(parse("alpha = nan", "").expect_err("NaN").contains("NaN is out of range"));
    }

    #[test]
    fn bets_of_more_than_the_stake_are_refused() {
        let refused = parse("bet_shares = [0.25, 0.25, 0.25, 0.5]", "").expect_err("more than all of it");
        let said = "judge.bet_shares: [0.25, 0.25, 0.25, 0.5] is not allowed: numbers that sum to at most 1: they are shares of one stake";
        assert!(refused.ends_with(said), "{refused}");
        let pair = ["bet_shares=0.9,0.9,0,0".to_owned()];
        let refused = what_if(&Parameters::default(), &pair).expect_err("more than all of it").to_string();
        assert!(refused.contains("judge.bet_shares: ") && refused.contains("sum to at most 1"), "{refused}");
        for taken in ["[0.1, 0.2, 0.3, 0.4]", "[0.7, 0.1, 0.1, 0.1]", "[0.5, 0, 0, 0]"] {
            parse(&format!("bet_shares = {taken}"), "").unwrap_or_else(|e| panic!("{taken}: {e}"));
        }
    }

    #[test]
    fn an_indicator_is_set_for_all_deployments_or_for_one() {
        let config = parse(
            "[judge.indicator.cpu_per_work]\ndirection = \"down\"\nweight = 2\ndelta = 0.05\ncritical = true",
            "[deployment.indicator.memory_in_use]\nmute = true\nmissing = \"ignore\"",
        )
        .unwrap_or_else(|e| panic!("{e}"));
        let cpu = config.deployments[0].judge.indicators[Indicator::CpuPerWork as usize];
        assert_eq!((cpu.direction, cpu.critical), (Direction::Down, true));
        assert_eq!((cpu.tolerance.weight, cpu.tolerance.delta, cpu.tolerance.delta_healthy), (2.0, 0.05, 0.1));
        let memory = |p: &Parameters| p.indicators[Indicator::MemoryInUse as usize];
        assert_eq!((memory(&config.judge).mute, memory(&config.deployments[0].judge).mute), (false, true));
        assert_eq!(memory(&config.deployments[0].judge).missing, Missing::Ignore);
        let again = config.to_string();
        let again = Config::parse(&again, "again").unwrap_or_else(|e| panic!("{e}\n{again}"));
        assert_eq!((again.judge, &again.deployments[0].judge), (config.judge, &config.deployments[0].judge));
    }

    #[test]
    fn mistakes_have_their_place_and_say_what_may_be_written() {
        let cases = [
            ("alpah = 0.01", "c.toml:2:1: alpah: unknown key: did you mean 'alpha'?"),
            (
                "indicator.cpu = { mute = true }",
                "c.toml:2:11: cpu: unknown key: remove it; known here are cpu_per_work, ",
            ),
            ("indicator.cpu_per_work = { delt = 1 }", "c.toml:2:28: delt: unknown key: did you mean 'delta'?"),
            (
                "indicator.cpu_per_work.missing = \"pass\"",
                "c.toml:2:34: judge.indicator.cpu_per_work.missing: \"pass\" is not allowed: write \"inconclusive\", \"insufficient\" or \"ignore\"",
            ),
            (
                "indicator.cpu_per_work.weight = 0",
                "c.toml:2:33: judge.indicator.cpu_per_work.weight: 0 is not allowed: write 0.01 to 100",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text, "").expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn what_if_takes_words_and_lists_as_they_are_typed() {
        let pairs =
            ["alpha=0.01", "indicator.memory_stall.missing=ignore", "bet_shares=0.1,0.2,0.3,0.4", "alpha = 0.02"];
        let p = what_if(&Parameters { beta: 0.2, ..Parameters::default() }, &pairs.map(str::to_owned)).expect("valid");
        assert_eq!((p.alpha, p.beta, p.bet_shares), (0.02, 0.2, [0.1, 0.2, 0.3, 0.4]));
        assert_eq!(p.indicators[Indicator::MemoryStall as usize].missing, Missing::Ignore);
        let refused = |pair: &str| what_if(&Parameters::default(), &[pair.to_owned()]).expect_err(pair).to_string();
        assert_eq!(refused("alpha"), "--what-if alpha: write KEY=VALUE, such as alpha=0.01");
        assert!(refused("alpha=2").ends_with("judge.alpha: 2 is out of range: write 0.000000001 to 0.1"));
        assert!(refused("alhpa=0.1").contains("did you mean 'alpha'?"), "{}", refused("alhpa=0.1"));
    }
}
