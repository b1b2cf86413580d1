//! Numbers as people read them: three significant digits, a space before the unit, thin spaces between thousands.
//!
//! Every function takes the base unit and says "–" where there is no number, so a missing value never reads as zero.

use crate::window::Indicator;

/// Stands where a value is missing.
pub const MISSING: &str = "–";

/// Narrow no-break space: keeps a number in one piece when a line wraps.
const THIN: char = '\u{202f}';

/// Nanoseconds as "412 ns", "51.3 µs", "2.10 ms", "1.25 s" or "12 min 5 s".
pub fn duration_ns(ns: f64) -> String {
    if !ns.is_finite() {
        return MISSING.to_owned();
    }
    match ns.abs() {
        a if a < 999.5 => format!("{ns:.0} ns"),
        a if a < 999.5e3 => format!("{} µs", three_digits(ns / 1e3)),
        a if a < 999.5e6 => format!("{} ms", three_digits(ns / 1e6)),
        a if a < 59.95e9 => format!("{} s", three_digits(ns / 1e9)),
        _ => {
            let seconds = (ns / 1e9).round() as i64;
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
    }
}

/// Bytes as "512 B", "1.50 KiB", "12.3 MiB".
pub fn bytes(bytes: f64) -> String {
    if !bytes.is_finite() {
        return MISSING.to_owned();
    }
    if bytes.abs() < 1023.5 {
        return format!("{bytes:.0} B");
    }
    let mut value = bytes / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or("KiB");
    for next in units {
        if value.abs() < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", three_digits(value))
}

/// A difference as a ratio minus one, with its sign: 0.31 is "+31 %", -0.0123 is "-1.2 %".
pub fn change(ratio: f64) -> String {
    if !ratio.is_finite() {
        return MISSING.to_owned();
    }
    let percent = ratio * 100.0;
    match percent.abs() {
        a if a < 0.05 => "0.0 %".to_owned(),
        a if a < 9.95 => format!("{percent:+.1} %"),
        a if a < 999.5 => format!("{percent:+.0} %"),
        a => format!("{}{} %", if percent < 0.0 { "-" } else { "+" }, count(a.round() as u64)),
    }
}

/// A share of a whole: 0.123 is "12.3 %".
pub fn share(share: f64) -> String {
    if !share.is_finite() {
        return MISSING.to_owned();
    }
    let percent = share * 100.0;
    match percent.abs() {
        a if a > 0.0 && a < 0.005 => "<0.01 %".to_owned(),
        a if a < 9.995 => format!("{percent:.2} %"),
        _ => format!("{percent:.1} %"),
    }
}

/// A share below 0.1 % with all the digits that it needs: 0.00002 is "0.002 %".
pub fn small_share(share: f64) -> String {
    let digits = format!("{:.4}", share * 100.0);
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    // What rounds to nothing has no sign.
    format!("{} %", if digits == "-0" { "0" } else { digits })
}

/// A count with thin spaces between thousands: 12345 is "12 345".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(THIN);
        }
        text.push(digit);
    }
    text
}

/// An e-value from its natural logarithm: "<1", "4.2", "37", "12 345", "1.3×10⁹".
pub fn evidence(ln: f64) -> String {
    if ln.is_nan() {
        return MISSING.to_owned();
    }
    let log10 = ln / std::f64::consts::LN_10;
    match ln.exp() {
        e if e < 1.0 => "<1".to_owned(),
        e if e < 9.95 => format!("{e:.1}"),
        e if e < 999_999.5 => count(e.round() as u64),
        _ if !log10.is_finite() => "∞".to_owned(),
        _ => {
            // Rounding the mantissa may carry: 9.96×10⁸ is 1.0×10⁹.
            let (mut mantissa, mut exponent) = (10f64.powf(log10.fract()), log10.trunc());
            if mantissa >= 9.95 {
                (mantissa, exponent) = (1.0, exponent + 1.0);
            }
            format!("{mantissa:.1}×10{}", superscript(exponent as u64))
        }
    }
}

/// P(t) with two digits, sign only where negative.
pub fn p(p: Option<f64>) -> String {
    // What rounds to nothing has no sign.
    let rounded = |p: f64| (100.0 * p).round() / 100.0 + 0.0;
    p.filter(|p| p.is_finite()).map_or_else(|| MISSING.to_owned(), |p| format!("{:.2}", rounded(p)))
}

/// Time since the start as a clock reads it: "0:42", "1:02:03".
pub fn elapsed(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Time of day in UTC: "20:41:07".
pub fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Day and time in UTC: "2026-11-24T20:41:07Z".
pub fn when(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms)).to_string()
}

/// An indicator's value in the unit that it is kept in (nanoseconds, bytes or a share).
pub fn indicator(indicator: Indicator, value: Option<f64>) -> String {
    let Some(value) = value.filter(|v| v.is_finite()) else { return MISSING.to_owned() };
    match indicator {
        Indicator::CpuPerWork
        | Indicator::RunQueueWait
        | Indicator::RunQueueWaitP95
        | Indicator::TurnaroundMean
        | Indicator::TurnaroundP95
        | Indicator::DependencyTurnaround => duration_ns(value),
        Indicator::MemoryStall => share(value),
        Indicator::MemoryInUse | Indicator::BytesPerWork => bytes(value),
    }
}

fn three_digits(value: f64) -> String {
    match value.abs() {
        a if a < 9.995 => format!("{value:.2}"),
        a if a < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn superscript(n: u64) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    n.to_string().bytes().map(|b| DIGITS[usize::from(b - b'0')]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_p_that_rounds_to_nothing_has_no_sign() {
        assert_eq!([Some(-0.004), Some(-0.006), Some(1.2345), None].map(p), ["0.00", "-0.01", "1.23", MISSING]);
    }

    #[test]
    fn durations_change_unit_where_they_would_need_a_fourth_digit() {
        let cases = [
            (0.0, "0 ns"),
            (412.4, "412 ns"),
            (999.6, "1.00 µs"),
            (51_300.0, "51.3 µs"),
            (999_499.0, "999 µs"),
            (999_600.0, "1.00 ms"),
            (2_100_000.0, "2.10 ms"),
            (1.25e9, "1.25 s"),
            (725e9, "12 min 5 s"),
            (f64::NAN, "–"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration_ns(ns), text, "{ns} ns");
        }
    }

    #[test]
    fn bytes_are_binary_units() {
        let cases =
            [(512.0, "512 B"), (1536.0, "1.50 KiB"), (12.3 * 1048576.0, "12.3 MiB"), (3.0 * 1073741824.0, "3.00 GiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text, "{n} bytes");
        }
        assert_eq!(bytes(1023.9), "1.00 KiB");
        assert_eq!(bytes(f64::INFINITY), "–");
    }

    #[test]
    fn changes_carry_their_sign_and_shares_do_not() {
        assert_eq!(change(0.31), "+31 %");
        assert_eq!(change(-0.0123), "-1.2 %");
        assert_eq!(change(0.0001), "0.0 %");
        assert_eq!(change(0.0996), "+10 %");
        assert_eq!(change(12.34), "+1\u{202f}234 %");
        assert_eq!(change(f64::NAN), "–");
        assert_eq!(share(0.123), "12.3 %");
        assert_eq!(share(0.00001), "<0.01 %");
        assert_eq!(share(0.0), "0.00 %");
        assert_eq!([0.0, 0.00002, 0.0009, -1e-9].map(small_share), ["0 %", "0.002 %", "0.09 %", "0 %"]);
    }

    #[test]
    fn counts_and_evidence_stay_readable_at_any_size() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1000), "1\u{202f}000");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(evidence(-5.0), "<1");
        assert_eq!(evidence(f64::NEG_INFINITY), "<1");
        assert_eq!(evidence(0.0), "1.0");
        assert_eq!(evidence(1000f64.ln()), "1\u{202f}000");
        assert_eq!(evidence(1.26e9f64.ln()), "1.3×10⁹");
        assert_eq!(evidence(9.99e8f64.ln()), "1.0×10⁹");
        assert_eq!(evidence(5000.0), "3.0×10²¹⁷¹", "far beyond what a float holds");
        assert_eq!(evidence(f64::NAN), "–");
    }

    #[test]
    fn clocks_and_indicators() {
        assert_eq!(elapsed(42_900_000_000), "0:42");
        assert_eq!(elapsed(3_723_000_000_000), "1:02:03");
        assert_eq!(indicator(Indicator::MemoryStall, Some(0.021)), "2.10 %");
        assert_eq!(indicator(Indicator::TurnaroundP95, Some(2.5e6)), "2.50 ms");
        assert_eq!(indicator(Indicator::MemoryInUse, Some(f64::NAN)), "–", "NaN is missing, not zero");
        assert_eq!(p(Some(1.234)), "1.23");
        assert_eq!(p(None), "–");
    }
}
