//! Kubernetes quantities, as far as two of them must be compared: `10Gi`, `1500m`, `1e3`.

/// Returns a quantity in units of 10⁻⁹, or nothing for what is not one.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.contains(['+', '-', '.']) {
        return None;
    }
    let (factor, ten) = scale(suffix)?;
    // What is smaller than a nano is rounded up, as the server does it.
    let exponent = ten + 9 - i32::try_from(fraction.len()).ok()?;
    let value = digits.parse::<i128>().ok()?.checked_mul(factor)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let value = if exponent < 0 { (value + power - 1) / power } else { value.checked_mul(power)? };
    Some(if negative { -value } else { value })
}

/// The factor of a suffix, and a power of ten besides.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 0));
    match suffix {
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "" => Some((1, 0)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => Some((1, exponent.strip_prefix(['e', 'E'])?.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::nanos;

    #[test]
    fn quantities_of_the_same_size_are_equal() {
        for (one, other) in [("10Gi", "10240Mi"), ("1", "1000m"), ("1.5Gi", "1536Mi"), ("1e3", "1k"), ("0.5", "500m")] {
            assert_eq!(nanos(one).unwrap(), nanos(other).unwrap(), "{one} {other}");
        }
        assert!(nanos("10Gi") > nanos("10G"));
        assert!(nanos("-1") < nanos("0"));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "Gi", "1.2.3", "ten", "1 Gi", "1-2", "1Xi"] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
