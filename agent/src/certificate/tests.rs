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
    let shown = |chain: &[&[u8]], pins: &[SpkiHash]| {
        let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        check_shown(&chain, pins, Phase::Initialization)
    };
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
    let shown = [leaf_of(&ca), ca.der.clone()];
    let check = |bundle: &str, pins: &[SpkiHash]| check_bundle(bundle, &shown, pins, Phase::Authentication);
    assert_eq!(check(&ca.pem, &[ca.pin]), Ok(()));
    assert_eq!(check(&ca.pem, &[]), Ok(()), "the proof alone speaks for it");
    let why = check("", &[]).expect_err("no CA");
    assert_eq!((why.code(), why.value("wanted")), (Code::PinMismatch, Some("any CA at all")));
    for bundle in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let why = check(bundle, &[ca.pin]).expect_err("no CA");
        assert_eq!(why.value("found"), Some("none at all"));
    }
}

/// What another holder of a shared token could try: it proves the bundle, too.
#[test]
fn a_pinned_ca_that_is_only_shown_vouches_for_nobody() {
    let (ours, theirs) = (Authority::new("cluster"), Authority::new("cluster"));
    let both = format!("{}{}", ours.pem, theirs.pem);
    let check = |shown: &[Vec<u8>]| check_bundle(&both, shown, &[ours.pin], Phase::Authentication);
    for forged in [
        vec![leaf_of(&theirs)],
        vec![leaf_of(&theirs), theirs.der.clone()],
        vec![leaf_of(&theirs), ours.der.clone()],
        vec![leaf_of(&theirs), theirs.der.clone(), ours.der.clone()],
        vec![b"no certificate".to_vec(), ours.der.clone()],
        Vec::new(),
    ] {
        let why = check(&forged).expect_err("nobody that is pinned has signed it");
        assert_eq!(why.code(), Code::PinMismatch);
        assert!(why.cause().contains("has not signed the server's certificate"), "{}", why.cause());
    }
    assert_eq!(check(&[leaf_of(&ours)]), Ok(()), "the bundle has the CA that the chain leaves out");
    assert_eq!(check(&[leaf_of(&ours), ours.der.clone()]), Ok(()));
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

/// kubeadm's CA is RSA by default.
#[test]
fn a_certificate_that_an_rsa_ca_has_signed_is_good() {
    let ca = Authority::with_key(
        "kubernetes",
        rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key"),
    );
    let key = NodeKey::generate().expect("a key");
    let now = Timestamp::from_millis(1_790_000_000_000);
    let leaf = ca.sign_key(&key.public_key_spki(), "n1", now, Duration::from_secs(60));
    let node = crate::join::tests::server::node();
    let wanted = Wanted { key: key.spki_hash(), node: &node, ca_bundle: &ca.pem, now };
    assert!(check_issued(&wanted, std::slice::from_ref(&leaf)).is_ok());
    let other = Authority::new("kubernetes");
    let wanted = Wanted { ca_bundle: &other.pem, ..wanted };
    assert_eq!(check_issued(&wanted, &[leaf]), Err(IssuedProblem::Signature));
}
