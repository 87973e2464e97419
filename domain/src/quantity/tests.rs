use proptest::prelude::*;

use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_canonical_text_prints_as_it_was_written() {
    for text in
        ["0", "8", "250m", "110", "32Gi", "16393244Ki", "1k", "5e3", "-2Mi", "1n", "7E", "1023", "-100u"]
    {
        assert_eq!(quantity(text).to_string(), text);
    }
}

#[test]
fn any_other_text_prints_in_canonical_form() {
    for (text, canonical) in [
        ("16384Ki", "16Mi"),
        ("1024Mi", "1Gi"),
        ("0.5Gi", "512Mi"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("+2", "2"),
        (".5", "500m"),
        ("5.", "5"),
        ("0Gi", "0"),
        ("0.1Ki", "102400m"),
        ("0.0001Ki", "102400u"),
        ("1000Ki", "1000Ki"),
        ("0.3Gi", "322122547200m"),
        ("12e6", "12e6"),
        ("1E3", "1e3"),
        ("1E", "1E"),
        ("0.1n", "1n"),
        ("1e-12", "1e-9"),
        ("00012", "12"),
    ] {
        assert_eq!(quantity(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused_with_the_reason() {
    for text in ["", "-", ".", "Gi", "1.2.3"] {
        assert_eq!(text.parse::<Quantity>(), Err(NotAQuantity::NoNumber), "{text}");
    }
    for text in ["1 Gi", "1gi", "1K", "1ee3", "1e", "1Gi ", "0x10", "1e3m", "٣"] {
        assert!(text.parse::<Quantity>().is_err(), "{text}");
    }
    for text in
        ["9223372036854775808", "8Ei", "10E", "1e19", "1e2000000000", &"9".repeat(60), &"0".repeat(65)]
    {
        assert_eq!(text.parse::<Quantity>(), Err(NotAQuantity::TooLarge), "{text}");
    }
}

#[test]
fn amounts_compare_and_compute_across_suffixes() {
    assert_eq!(quantity("1Gi"), quantity("1073741824"));
    assert!(quantity("1G") < quantity("1Gi"));
    assert_eq!(quantity("8").less(quantity("250m")).to_string(), "7750m");
    assert_eq!(quantity("1Gi").less(quantity("24Mi")).to_string(), "1000Mi");
    assert_eq!(quantity("1Mi").less(quantity("1Gi")), Quantity::ZERO);
    assert_eq!(
        quantity("1Gi").checked_add(quantity("1")).map(|sum| sum.to_string()).as_deref(),
        Some("1073741825")
    );
    assert_eq!(quantity("9223372036854775807").checked_add(quantity("1")), None);
    assert_eq!((quantity("250m").value(), quantity("-1500m").value()), (1, -2));
    assert_eq!(quantity("1500u").milli_value(), 2);
}

#[test]
fn json_carries_the_canonical_text() {
    assert_eq!(serde_json::to_string(&Quantity::from_bytes(32 << 30)).expect("a string"), "\"32Gi\"");
    assert_eq!(serde_json::from_str::<Quantity>("\"250m\"").expect("a quantity"), Quantity::from_milli(250));
    assert!(serde_json::from_str::<Quantity>("\"much\"").is_err());
}

proptest! {
    #[test]
    fn printing_and_reading_changes_nothing(milli in any::<i64>(), bytes in any::<u64>(), units in any::<u64>()) {
        for quantity in [Quantity::from_milli(milli), Quantity::from_bytes(bytes), Quantity::from_units(units)] {
            let text = quantity.to_string();
            let read: Quantity = text.parse().expect("its own text");
            prop_assert_eq!(read, quantity);
            // Digits alone are read as decimal, as in Kubernetes: bytes that are no
            // whole Ki but a whole k take that suffix then, once and for all.
            let settled = read.to_string();
            prop_assert_eq!(settled.parse::<Quantity>().expect("its own text").to_string(), settled);
        }
    }

    #[test]
    fn every_suffix_survives(number in 0_u32..100_000, fraction in 0_u32..1_000_000, suffix in "(n|u|m||k|M|G|T|Ki|Mi|Gi|Ti|e-?[0-9])") {
        if let Ok(first) = format!("{number}.{fraction}{suffix}").parse::<Quantity>() {
            let again: Quantity = first.to_string().parse().expect("its own text");
            prop_assert_eq!(again, first);
            prop_assert_eq!(again.to_string(), first.to_string());
        }
    }

    #[test]
    fn no_text_makes_the_parser_stumble(text in ".{0,70}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn taking_away_what_was_added_gives_the_same(a in 0..i64::MAX / 2, b in 0..i64::MAX / 2) {
        let (a, b) = (Quantity::from_milli(a), Quantity::from_milli(b));
        prop_assert_eq!(a.checked_add(b).expect("within bounds").less(b), a);
    }
}
