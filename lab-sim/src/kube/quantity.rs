//! Resource quantities in the form in which the server stores them, and moments as it writes them.

use std::time::{SystemTime, UNIX_EPOCH};

const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: [(&str, i32); 10] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0), ("m", -3), ("u", -6), ("n", -9)];

/// Returns `text` in the canonical form (`1000m` is `1`, `0.5` is `500m`, `1024Mi` is `1Gi`), or `None` where it is no
/// quantity.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let nano = nano(text)?;
    let binary = BINARY.iter().any(|(suffix, _)| text.ends_with(suffix));
    let unit = 1_000_000_000;
    if nano == 0 {
        return Some("0".into());
    }
    if binary && nano % unit == 0 && (nano / unit).abs() >= 1024 {
        let whole = nano / unit;
        for (suffix, bits) in BINARY {
            if whole % (1_i128 << bits) == 0 {
                return Some(format!("{}{suffix}", whole >> bits));
            }
        }
        return Some(whole.to_string());
    }
    DECIMAL.iter().find_map(|(suffix, power)| {
        let scale = 10_i128.pow(u32::try_from(power + 9).ok()?);
        (nano % scale == 0).then(|| format!("{}{suffix}", nano / scale))
    })
}

/// Returns a quantity in billionths, or `None` where it is none.
pub(crate) fn nano(text: &str) -> Option<i128> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || !(whole.chars().chain(part.chars())).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let places = u32::try_from(part.len()).ok().filter(|places| *places <= 18)?;
    let scaled = if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        digits.checked_mul(1_i128 << bits)?.checked_mul(1_000_000_000)?
    } else if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        digits.checked_mul(10_i128.pow(u32::try_from(power + 9).ok()?))?
    } else {
        return None;
    };
    Some(sign * scaled / 10_i128.pow(places))
}

/// Returns a moment as `2026-01-31T08:00:00Z`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since the first of March of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quantities_come_back_in_canonical_form() {
        for (given, expected) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1000", "1k"),
            ("10Gi", "10Gi"),
            ("1.5Gi", "1536Mi"),
            ("250m", "250m"),
            ("0", "0"),
            ("100M", "100M"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
        assert_eq!(canonical("ten"), None);
        assert_eq!(canonical("1Xi"), None);
    }

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(1_709_210_096)), "2024-02-29T12:34:56Z");
    }
}
