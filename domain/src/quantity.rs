//! Kubernetes resource quantities: parsed, computed with and printed exactly.
//! Source: `k8s.io/apimachinery/pkg/api/resource` (`Quantity`, `suffix.go`).

mod text;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest text that is read as a quantity, in bytes.
pub const LONGEST_QUANTITY: usize = 64;

/// An amount of a resource: CPUs, bytes, pods. Counted in billionths, hence
/// exact down to Kubernetes' smallest unit (`n`), and never beyond ±(2^63 - 1)
/// whole units. Equal and ordered by amount, whatever suffix it was written with.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// How a quantity is printed; it keeps the family of suffixes it was written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Powers of 1000: `n u m "" k M G T P E`.
    #[default]
    DecimalSi,
    /// Powers of 1024: `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// Powers of ten: `1e3`.
    DecimalExponent,
}

/// The text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuantity {
    /// No number at all.
    #[error("it has no number; write a quantity as 250m, 8 or 16Gi")]
    NoNumber,
    /// Something behind the number that is no suffix.
    #[error("its suffix is none of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, e<exponent>")]
    Suffix,
    /// Beyond ±(2^63 - 1), or too long to be read.
    #[error("it is larger than 2^63 - 1 or longer than {LONGEST_QUANTITY} characters")]
    TooLarge,
}

const NANO: i128 = 1_000_000_000;
const NANO_PER_MILLI: i128 = 1_000_000;
const LARGEST: i128 = i64::MAX as i128 * NANO;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// Whole units: CPUs, pods.
    #[must_use]
    pub fn from_units(units: u64) -> Self {
        Self::capped(i128::from(units).saturating_mul(NANO), Format::DecimalSi)
    }

    /// Thousandths: the `m` of CPUs.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self::capped(i128::from(milli).saturating_mul(NANO_PER_MILLI), Format::DecimalSi)
    }

    /// Bytes, printed with binary suffixes.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Self {
        Self::capped(i128::from(bytes).saturating_mul(NANO), Format::BinarySi)
    }

    /// The amount in whole units, rounded away from zero as Kubernetes' `Value`.
    #[must_use]
    pub fn value(self) -> i64 {
        i64::try_from(divide_away(self.nano, NANO)).unwrap_or(i64::MAX)
    }

    /// The amount in thousandths, rounded away from zero as Kubernetes'
    /// `MilliValue`; wider than 64 bits, so that it cannot overflow.
    #[must_use]
    pub fn milli_value(self) -> i128 {
        divide_away(self.nano, NANO_PER_MILLI)
    }

    /// The family of suffixes it is printed in.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// The sum in this one's format; `None` beyond 2^63 - 1.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let nano = self.nano.checked_add(other.nano)?;
        (nano.abs() <= LARGEST).then_some(Self { nano, format: self.format })
    }

    /// What is left when `other` is taken away, and never less than nothing:
    /// the way a kubelet takes reservations from its capacity.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self::capped(self.nano.saturating_sub(other.nano).max(0), self.format)
    }

    fn capped(nano: i128, format: Format) -> Self {
        Self { nano: nano.clamp(-LARGEST, LARGEST), format }
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        text::parse(text)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::canonical(*self))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nano.hash(state);
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Division that rounds away from zero: who wants some of a resource gets some.
fn divide_away(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    if dividend % divisor == 0 { quotient } else { quotient + dividend.signum() }
}

#[cfg(test)]
mod tests;
