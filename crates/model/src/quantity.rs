//! Kubernetes quantities, exact: `500m`, `1.5Gi`, `1e3`.
//!
//! Source: the grammar in Kubernetes' `apimachinery/pkg/api/resource`:
//! `quantity = signedNumber suffix`, `number = digits | digits.digits | digits. | .digits`,
//! `suffix = Ki|Mi|Gi|Ti|Pi|Ei | n|u|m|""|k|M|G|T|P|E | (e|E) signedNumber`.
//! Negative values are refused, and so is anything finer than a nano: no rounding ever happens.

use std::{cmp::Ordering, fmt, hash, str::FromStr};

const NANO: i128 = 1_000_000_000;
/// Largest value, as in Kubernetes: 2^63 - 1.
const MAX_UNITS: i128 = i64::MAX as i128;

/// How a quantity was written, and so how it is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantityFormat {
    /// Powers of 1024: `Ki`, `Mi`, …
    BinarySi,
    /// Powers of 1000: `m`, `k`, `M`, …
    DecimalSi,
    /// `1e3`.
    DecimalExponent,
}

/// An exact, non-negative amount. Equality and order look at the value, not at how it was written.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: QuantityFormat,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not follow the grammar.
    #[error("must be a Kubernetes quantity, for example 500m, 2 or 1.5Gi")]
    Syntax,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// Finer than a nano: keeping it would mean rounding.
    #[error("must not be finer than 1n")]
    TooFine,
    /// Beyond 2^63 - 1.
    #[error("must not be more than 9223372036854775807")]
    TooLarge,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: QuantityFormat::DecimalSi };

    /// So many thousandths, for example of a core.
    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis as i128 * 1_000_000, format: QuantityFormat::DecimalSi }
    }

    /// So many bytes, written in powers of 1024.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { nanos: bytes as i128 * NANO, format: QuantityFormat::BinarySi }
    }

    /// Whole thousandths, `None` where the value is finer or does not fit.
    pub fn as_millis(self) -> Option<u64> {
        (self.nanos % 1_000_000 == 0).then(|| u64::try_from(self.nanos / 1_000_000).ok()).flatten()
    }

    /// The thousandths that are whole, whatever is finer left aside.
    pub fn whole_millis(self) -> u64 {
        u64::try_from(self.nanos / 1_000_000).unwrap_or(u64::MAX)
    }

    /// Whole units, `None` where the value is a fraction.
    pub fn as_units(self) -> Option<u64> {
        (self.nanos % NANO == 0).then(|| u64::try_from(self.nanos / NANO).ok()).flatten()
    }

    /// How it is written.
    pub const fn format(self) -> QuantityFormat {
        self.format
    }

    /// The sum, `None` beyond the largest value; written as `self` is.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let nanos = self.nanos.checked_add(other.nanos)?;
        (nanos <= MAX_UNITS * NANO).then_some(Self { nanos, format: self.format })
    }

    /// A CPU amount as existing agents read it: thousandths, `4000m`; canonical where it is finer.
    pub fn to_cpu_string(self) -> String {
        self.as_millis().map_or_else(|| self.to_string(), |millis| format!("{millis}m"))
    }

    fn from_parts(nanos: i128, format: QuantityFormat) -> Result<Self, QuantityError> {
        if nanos > MAX_UNITS * NANO { Err(QuantityError::TooLarge) } else { Ok(Self { nanos, format }) }
    }
}

/// What a suffix multiplies with: `numerator / denominator` nanos for one unit of the mantissa.
struct Scale {
    multiplier: i128,
    /// Powers of ten still to apply; negative ones divide.
    exponent: i32,
    format: QuantityFormat,
}

fn scale_of(suffix: &str) -> Result<Scale, QuantityError> {
    use QuantityFormat::{BinarySi, DecimalExponent, DecimalSi};
    let decimal = |exponent| Ok(Scale { multiplier: 1, exponent, format: DecimalSi });
    let binary = |power: u32| Ok(Scale { multiplier: 1_i128 << (10 * power), exponent: 0, format: BinarySi });
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Syntax)?;
            let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(QuantityError::Syntax);
            }
            // Past four digits every exponent is equally out of range; clamp instead of overflowing.
            let magnitude = bare.trim_start_matches('0');
            let magnitude: i32 = if magnitude.len() > 4 { 9_999 } else { magnitude.parse().unwrap_or(0) };
            let exponent = if digits.starts_with('-') { -magnitude } else { magnitude };
            Ok(Scale { multiplier: 1, exponent, format: DecimalExponent })
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Syntax);
        }
        let scale = scale_of(suffix)?;
        let fraction = fraction.trim_end_matches('0');
        let digits: String = [whole.trim_start_matches('0'), fraction].concat();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Self::from_parts(0, scale.format);
        }
        if negative {
            return Err(QuantityError::Negative);
        }
        let fraction_digits = i32::try_from(fraction.len()).map_err(|_| QuantityError::TooFine)?;
        let nanos = scaled(digits, scale.multiplier, scale.exponent - fraction_digits + 9)?;
        Self::from_parts(nanos, scale.format)
    }
}

/// `digits × multiplier × 10^exponent` as a whole number, or why it is none.
fn scaled(digits: &str, multiplier: i128, exponent: i32) -> Result<i128, QuantityError> {
    // Trailing zeros belong to the exponent, so that long but exact numbers fit.
    let trimmed = digits.trim_end_matches('0');
    let zeros = i32::try_from(digits.len() - trimmed.len()).map_err(|_| QuantityError::TooLarge)?;
    let mut exponent = exponent.saturating_add(zeros);
    // 10^60 units of anything are beyond 2^63 nanos, and 60 significant digits beyond a nano.
    if exponent > 60 {
        return Err(QuantityError::TooLarge);
    }
    if trimmed.len() > 38 {
        return Err(if exponent >= 0 { QuantityError::TooLarge } else { QuantityError::TooFine });
    }
    let mut value: i128 = trimmed.parse().map_err(|_| QuantityError::TooLarge)?;
    let mut multiplier = multiplier;
    // 10 = 2 × 5: binary multipliers cancel against the twos before anything can overflow.
    while exponent < 0 && (multiplier % 2 == 0 || value % 2 == 0) && value % 5 == 0 {
        if multiplier % 2 == 0 {
            multiplier /= 2;
        } else {
            value /= 2;
        }
        value /= 5;
        exponent += 1;
    }
    if exponent < 0 {
        return Err(QuantityError::TooFine);
    }
    let power = 10_i128.checked_pow(exponent.unsigned_abs()).ok_or(QuantityError::TooLarge)?;
    value.checked_mul(multiplier).and_then(|value| value.checked_mul(power)).ok_or(QuantityError::TooLarge)
}

impl fmt::Display for Quantity {
    /// The canonical form of Kubernetes: no fraction, the largest suffix that leaves none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let text = match self.format {
            QuantityFormat::BinarySi if self.nanos % NANO == 0 => binary_text(self.nanos / NANO),
            QuantityFormat::BinarySi | QuantityFormat::DecimalSi => decimal_text(self.nanos, si_suffix),
            QuantityFormat::DecimalExponent => decimal_text(self.nanos, exponent_suffix),
        };
        f.pad(&text)
    }
}

fn binary_text(mut units: i128) -> String {
    let mut power = 0;
    while power < 6 && units % 1_024 == 0 {
        units /= 1_024;
        power += 1;
    }
    format!("{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power])
}

fn decimal_text(nanos: i128, suffix: fn(usize) -> String) -> String {
    let mut value = nanos;
    let mut power = 0;
    while power < 9 && value % 1_000 == 0 {
        value /= 1_000;
        power += 1;
    }
    format!("{value}{}", suffix(power))
}

fn si_suffix(power: usize) -> String {
    ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power].to_owned()
}

fn exponent_suffix(power: usize) -> String {
    match power {
        3 => String::new(),
        _ => format!("e{}", (i64::try_from(power).unwrap_or(0) - 3) * 3),
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
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
        self.nanos.cmp(&other.nanos)
    }
}
impl hash::Hash for Quantity {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl serde::Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Quantity {
    /// A text, or a whole number as YAML writers often leave it.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text.parse().map_err(serde::de::Error::custom),
            serde_json::Value::Number(number) => number.to_string().parse().map_err(serde::de::Error::custom),
            _ => Err(serde::de::Error::custom(QuantityError::Syntax)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Quantity, QuantityError> {
        text.parse()
    }

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (left, right) in [
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("1E", "1e18"),
            (".5", "500m"),
            ("5.", "5"),
            ("+2", "2"),
            ("0.1Ki", "102.4"),
            ("1.0000000000", "1"),
            ("100e-2", "1"),
            ("0Ei", "0"),
            ("-0", "0"),
            ("1000000n", "1m"),
            ("0.0000001e9", "100"),
        ] {
            assert_eq!(parse(left).unwrap(), parse(right).unwrap(), "{left} {right}");
        }
    }

    #[test]
    fn the_canonical_form_has_no_fraction_and_the_largest_suffix() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1e3"),
            ("1500e-3", "1500e-3"),
            ("4000m", "4"),
            ("2048Mi", "2Gi"),
            ("1000Ki", "1000Ki"),
            ("0.1Ki", "102400m"),
            ("1200000", "1200k"),
            ("0", "0"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), canonical, "{text}");
        }
        assert_eq!(parse("4").unwrap().to_cpu_string(), "4000m");
    }

    #[test]
    fn what_the_grammar_does_not_know_is_refused() {
        for text in [
            "", ".", "Gi", "1 Gi", "1gi", "1GI", "1K", "0x10", "1e", "1e+", "1e1.5", "1..2", "1.2.3", "--1",
            "NaN", "inf", "1_000", "１", " 1", "1Zi",
        ] {
            assert_eq!(parse(text), Err(QuantityError::Syntax), "{text}");
        }
        assert_eq!(parse("-1"), Err(QuantityError::Negative));
        assert_eq!(parse("0.1n"), Err(QuantityError::TooFine));
        assert_eq!(parse("1e-10"), Err(QuantityError::TooFine));
        assert_eq!(parse("1e99999"), Err(QuantityError::TooLarge));
        assert_eq!(parse("8Ei"), Err(QuantityError::TooLarge));
        assert_eq!(parse("9223372036854775808"), Err(QuantityError::TooLarge));
        assert!(parse("9223372036854775807").is_ok());
    }

    proptest! {
        #[test]
        fn writing_and_reading_changes_nothing(
            whole in "[0-9]{1,6}", fraction in "[0-9]{0,3}", suffix in "(n|u|m|k|M|G|Ki|Mi|Gi|e[0-9]|E-?[0-3]|)",
        ) {
            if let Ok(quantity) = parse(&format!("{whole}.{fraction}{suffix}")) {
                let again = parse(&quantity.to_string()).unwrap();
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), quantity.to_string());
            }
        }

        #[test]
        fn a_decimal_is_worth_what_its_digits_say(whole in 0_u64..1_000_000, millis in 0_u64..1_000) {
            let quantity = parse(&format!("{whole}.{millis:03}")).unwrap();
            prop_assert_eq!(quantity, Quantity::from_millis(whole * 1_000 + millis));
            prop_assert_eq!(parse(&format!("{}m", whole * 1_000 + millis)).unwrap(), quantity);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+]?[0-9.]{0,50}[a-zA-Z+0-9-]{0,12}") {
            let _ = parse(&text);
        }
    }
}
