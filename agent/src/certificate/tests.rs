use super::*;
use crate::join::tests::authority::Authority;
use crate::ports::NodeKey;

fn leaf_of(ca: &Authority) -> Vec<u8> {
    let key = NodeKey::generate().expect("a key");
    ca.sign_key(
        &key.public_key_spki(),
        "n1",
        Timestamp::from_millis(1_790_000_000_000),
        Duration::from_secs(60),
    )
}

#[test]
fn a_shown_ca_must_be_pinned_and_must_have_signed() {
    let (ours, theirs) = (Authority::new("cluster"), Authority::new("cluster"));
    let (leaf, forged) = (leaf_of(&ours), leaf_of(&theirs));
    let shown = |chain: &[&[u8]], pins: &[SpkiHash]| check_shown(chain, pins, Phase::Initialization);
    assert_eq!(shown(&[&leaf, &ours.der], &[theirs.pin, ours.pin]), Ok(()), "any of the pins");
    assert_eq!(shown(&[&forged], &[ours.pin]), Ok(()), "a leaf alone is left to the proof");
    assert_eq!(shown(&[&forged, &theirs.der], &[]), Ok(()), "nothing is pinned");
    let why = shown(&[&forged, &theirs.der], &[ours.pin]).expect_err("another CA");
    assert_eq!(
        (why.value("found"), why.value("wanted")),
        (Some(theirs.pin.to_pin().as_str()), Some(ours.pin.to_pin().as_str()))
    );
    let why = shown(&[&forged, &ours.der], &[ours.pin]).expect_err("anyone can show a CA");
    assert!(why.value("found").is_some_and(|found| found.contains("not signed")), "{why}");
}

#[test]
fn a_bundle_without_any_ca_is_no_bundle() {
    let ca = Authority::new("cluster");
    assert_eq!(check_bundle(&ca.pem, &[ca.pin], Phase::Authentication), Ok(()));
    for bundle in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let why = check_bundle(bundle, &[ca.pin], Phase::Authentication).expect_err("no CA");
        assert_eq!(why.value("found"), Some("none at all"));
    }
}

#[test]
fn no_bytes_make_the_check_panic() {
    let leaf = leaf_of(&Authority::new("cluster"));
    let node = crate::join::tests::server::node();
    let now = Timestamp::from_millis(1_790_000_000_000);
    let wanted = Wanted { key: SpkiHash::of(b"key"), node: &node, ca_bundle: "", now };
    for end in 0..leaf.len() {
        assert!(check_issued(&wanted, &[leaf[..end].to_vec()]).is_err());
    }
    assert_eq!(check_issued(&wanted, &[]), Err(IssuedProblem::Empty));
}
