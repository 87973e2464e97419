//! The text form of a quantity: `<sign><number><suffix>` to and from billionths.

use super::{Format, LARGEST, LONGEST_QUANTITY, NANO, NotAQuantity, Quantity};

const DECIMAL: [(&str, u32); 10] =
    [("n", 0), ("u", 3), ("m", 6), ("", 9), ("k", 12), ("M", 15), ("G", 18), ("T", 21), ("P", 24), ("E", 27)];

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Reads a quantity. What is finer than a billionth is rounded away from zero,
/// and a binary amount between 0 and 1 turns decimal, both as Kubernetes does.
pub(super) fn parse(text: &str) -> Result<Quantity, NotAQuantity> {
    if text.len() > LONGEST_QUANTITY {
        return Err(NotAQuantity::TooLarge);
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(NotAQuantity::NoNumber);
    }

    let (format, scale) = suffix_of(suffix).ok_or(NotAQuantity::Suffix)?;
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = match [whole.trim_start_matches('0'), fraction].concat().as_str() {
        "" => 0,
        digits => digits.parse().map_err(|_| NotAQuantity::TooLarge)?,
    };
    let fraction_digits = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let nano = match scale {
        Scale::Ten(exponent) => shift_ten(digits, exponent.saturating_sub(fraction_digits)),
        Scale::Two(exponent) => digits
            .checked_mul(1_i128 << exponent)
            .and_then(|units| shift_ten(units, 9_i32.saturating_sub(fraction_digits))),
    }
    .filter(|nano| *nano <= LARGEST)
    .ok_or(NotAQuantity::TooLarge)?;

    let format =
        if format == Format::BinarySi && nano > 0 && nano < NANO { Format::DecimalSi } else { format };
    Ok(Quantity { nano: if negative { -nano } else { nano }, format })
}

/// The canonical text: no fraction, and the largest suffix that loses nothing.
pub(super) fn canonical(quantity: Quantity) -> String {
    let Quantity { nano, format } = quantity;
    if nano == 0 {
        return "0".to_owned();
    }
    match format {
        // Below 1024, or with a fraction, a binary suffix could not be exact.
        Format::BinarySi if nano.abs() >= 1024 * NANO && nano % NANO == 0 => binary(nano / NANO),
        Format::BinarySi | Format::DecimalSi => decimal(nano),
        Format::DecimalExponent => exponent(nano),
    }
}

enum Scale {
    /// Ten to the power of this, counted from a billionth.
    Ten(i32),
    /// Two to the power of this, counted from one.
    Two(u32),
}

fn suffix_of(suffix: &str) -> Option<(Format, Scale)> {
    if let Some((_, exponent)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::BinarySi, Scale::Two(*exponent)));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::DecimalSi, Scale::Ten(i32::try_from(*exponent).ok()?)));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    Some((Format::DecimalExponent, Scale::Ten(exponent.checked_add(9)?)))
}

fn shift_ten(digits: i128, exponent: i32) -> Option<i128> {
    if digits == 0 {
        return Some(0);
    }
    let power = |by: u32| 10_i128.checked_pow(by);
    match u32::try_from(exponent) {
        Ok(up) => digits.checked_mul(power(up)?),
        // Beyond 10^38 the divisor is larger than any dividend: what is left is
        // the smallest amount there is.
        Err(_) => Some(power(exponent.unsigned_abs()).map_or(1, |down| super::divide_away(digits, down))),
    }
}

fn decimal(nano: i128) -> String {
    let largest = DECIMAL.iter().rev().find_map(|(suffix, exponent)| {
        let unit = 10_i128.pow(*exponent);
        (nano % unit == 0).then(|| format!("{}{suffix}", nano / unit))
    });
    largest.unwrap_or_default()
}

fn binary(units: i128) -> String {
    let largest = BINARY.iter().rev().find_map(|(suffix, exponent)| {
        let unit = 1_i128 << exponent;
        (units % unit == 0).then(|| format!("{}{suffix}", units / unit))
    });
    largest.unwrap_or_else(|| units.to_string())
}

fn exponent(nano: i128) -> String {
    let largest = DECIMAL.iter().rev().find_map(|(_, exponent)| {
        let unit = 10_i128.pow(*exponent);
        (nano % unit == 0).then(|| match i64::from(*exponent) - 9 {
            0 => (nano / unit).to_string(),
            power => format!("{}e{power}", nano / unit),
        })
    });
    largest.unwrap_or_default()
}
