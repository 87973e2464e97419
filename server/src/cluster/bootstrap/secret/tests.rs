//! Kubernetes' checks, one by one and in their order.

use super::*;

const ID: &str = "u7k2pw";
const SECRET: &str = "x91mqz40bhc8ydre";
const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// A Secret as `kubeadm token create` makes it, good until 2026-09-22.
pub(in crate::cluster::bootstrap) fn secret(changes: &[(&str, Option<&str>)]) -> BootstrapSecret {
    let mut data: BTreeMap<&str, &str> = BTreeMap::from([
        ("token-id", ID),
        ("token-secret", SECRET),
        ("expiration", "2026-09-22T00:00:00Z"),
        ("usage-bootstrap-authentication", "true"),
        ("usage-bootstrap-signing", "true"),
        ("auth-extra-groups", GROUP),
    ]);
    let mut annotations = BTreeMap::new();
    for (key, value) in changes {
        match (key.strip_prefix("berth.dev/"), value) {
            (Some(_), Some(value)) => drop(annotations.insert((*key).to_owned(), (*value).to_owned())),
            (None, Some(value)) => drop(data.insert(key, value)),
            (_, None) => drop(data.remove(key)),
        }
    }
    let owned = |(key, value): (&str, &str)| (key.to_owned(), Zeroizing::new(value.as_bytes().to_vec()));
    BootstrapSecret {
        kind: TYPE.to_owned(),
        deleting: false,
        created: Timestamp::from_millis(1_789_000_000_000),
        data: data.into_iter().map(owned).collect(),
        annotations,
    }
}

/// 2026-09-21T13:46:40Z.
pub(in crate::cluster::bootstrap) fn now() -> Timestamp {
    Timestamp::from_millis(1_789_998_400_000)
}

fn id() -> TokenId {
    ID.parse().expect("an id")
}

/// What the checks say of a Secret: `good`, the code, or the reason.
fn verdict(secret: &BootstrapSecret) -> String {
    let known = match read(&id(), secret, 1_000) {
        Ok(known) => known,
        Err(unfit) => return format!("before the proof: {unfit}"),
    };
    match known.check(now()) {
        Ok(()) => "good".to_owned(),
        Err(why) => {
            assert!(why.told().value("reason").is_none(), "{}", why.told().cause());
            let said = why.value("reason").or(why.value("expired")).unwrap_or_default();
            let there = format!("the Secret kube-system/bootstrap-token-{ID} is there, but ");
            format!("{} {}", why.code(), said.strip_prefix(&there).unwrap_or(said))
        }
    }
}

#[test]
fn every_check_of_kubernetes_is_mirrored() {
    let long = format!("system:bootstrappers:{}", "a".repeat(257));
    let fits = format!("system:bootstrappers:{}", "a".repeat(256));
    for (changes, wanted) in [
        (vec![], "good"),
        (vec![("token-secret", None)], "before the proof: its token-secret"),
        (vec![("token-secret", Some(""))], "before the proof: its token-secret"),
        (vec![("token-secret", Some("x91mqz40bhc8ydr"))], "before the proof: its token-secret"),
        (vec![("token-secret", Some("x91mqz40bhc8ydre\n"))], "before the proof: its token-secret"),
        (vec![("token-secret", Some("0123456789abcdef"))], "before the proof: its token-secret"),
        (vec![("token-secret", Some("passwordpassword"))], "before the proof: its token-secret"),
        (vec![("token-id", Some("u7k2px"))], "TOKEN_REJECTED its token-id"),
        (vec![("token-id", None)], "TOKEN_REJECTED its token-id"),
        (vec![("expiration", None)], "good"),
        (vec![("expiration", Some(""))], "good"),
        (vec![("expiration", Some("2026-09-21T13:46:40Z"))], "TOKEN_EXPIRED 2026-09-21T13:46:40Z"),
        (vec![("expiration", Some("2026-09-21T13:46:41Z"))], "good"),
        (vec![("expiration", Some("2026-09-21T15:46:41+02:00"))], "good"),
        (vec![("expiration", Some("2026-09-21T15:46:40+02:00"))], "TOKEN_EXPIRED 2026-09-21T13:46:40Z"),
        (vec![("expiration", Some("2026-09-21T08:46:41-05:00"))], "good"),
        (vec![("expiration", Some("2026-09-21T08:46:40.5-05:00"))], "good"),
        (vec![("expiration", Some("tomorrow"))], "TOKEN_EXPIRED a time that cannot be read"),
        (vec![("expiration", Some("1800000000"))], "TOKEN_EXPIRED a time that cannot be read"),
        (vec![("expiration", Some("2027-09-21T08:46:40+99:00"))], "TOKEN_EXPIRED a time that cannot be read"),
        (vec![("expiration", Some("é+00:00"))], "TOKEN_EXPIRED a time that cannot be read"),
        (vec![("usage-bootstrap-authentication", None)], "TOKEN_REJECTED its usage"),
        (vec![("usage-bootstrap-authentication", Some("True"))], "TOKEN_REJECTED its usage"),
        (vec![("usage-bootstrap-authentication", Some("true "))], "TOKEN_REJECTED its usage"),
        (vec![("auth-extra-groups", None)], "good"),
        (vec![("auth-extra-groups", Some("system:bootstrappers:a,system:bootstrappers:b:c-d"))], "good"),
        (vec![("auth-extra-groups", Some(&fits))], "good"),
        (vec![("auth-extra-groups", Some(&long))], "TOKEN_REJECTED its auth-extra-groups"),
        (
            vec![("auth-extra-groups", Some("system:bootstrappers:a, system:bootstrappers:b"))],
            "TOKEN_REJECTED its auth-extra-groups",
        ),
        (
            vec![("auth-extra-groups", Some("system:bootstrappers:a,system:masters"))],
            "TOKEN_REJECTED its auth-extra-groups",
        ),
        (
            vec![("auth-extra-groups", Some("system:bootstrappers:a-"))],
            "TOKEN_REJECTED its auth-extra-groups",
        ),
        (vec![("auth-extra-groups", Some("system:bootstrappers:"))], "TOKEN_REJECTED its auth-extra-groups"),
        (
            vec![("auth-extra-groups", Some("system:bootstrappers:a\n"))],
            "TOKEN_REJECTED its auth-extra-groups",
        ),
    ] {
        let found = verdict(&secret(&changes));
        assert!(found.starts_with(wanted), "{changes:?}: {found}");
    }
}

#[test]
fn the_checks_come_in_kubernetes_order() {
    let everything_wrong = BootstrapSecret {
        deleting: true,
        kind: "Opaque".to_owned(),
        ..secret(&[
            ("token-secret", Some("short")),
            ("token-id", Some("other0")),
            ("expiration", Some("1999-01-01T00:00:00Z")),
            ("usage-bootstrap-authentication", Some("no")),
            ("auth-extra-groups", Some("system:masters")),
            ("berth.dev/uses", Some("0")),
        ])
    };
    let mut at = everything_wrong;
    type Mend = fn(&mut BootstrapSecret);
    let mends: [(&str, Mend); 8] = [
        ("it is being deleted", |secret| secret.deleting = false),
        ("its type is \"Opaque\"", |secret| secret.kind = TYPE.to_owned()),
        ("its token-secret", |secret| put(secret, "token-secret", SECRET)),
        ("its token-id", |secret| put(secret, "token-id", ID)),
        ("TOKEN_EXPIRED", |secret| put(secret, "expiration", "")),
        ("its usage-bootstrap-authentication", |secret| {
            put(secret, "usage-bootstrap-authentication", "true")
        }),
        ("its auth-extra-groups", |secret| put(secret, "auth-extra-groups", GROUP)),
        ("its annotation berth.dev/uses", |secret| secret.annotations.clear()),
    ];
    for (wanted, mend) in mends {
        let found = verdict(&at);
        assert!(found.contains(wanted), "{wanted}: {found}");
        mend(&mut at);
    }
    assert_eq!(verdict(&at), "good");
}

fn put(secret: &mut BootstrapSecret, key: &str, value: &str) {
    secret.data.insert(key.to_owned(), Zeroizing::new(value.as_bytes().to_vec()));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for key in
        ["token-secret", "token-id", "expiration", "usage-bootstrap-authentication", "auth-extra-groups"]
    {
        let mut secret = secret(&[]);
        secret.data.insert(key.to_owned(), Zeroizing::new(vec![0xff, 0xfe]));
        assert_ne!(verdict(&secret), "good", "{key}");
    }
}

#[test]
fn annotations_bind_a_token_and_a_slip_in_one_voids_it() {
    let bound = secret(&[
        ("berth.dev/names", Some("rack1-*")),
        ("berth.dev/pool", Some("gpu")),
        ("berth.dev/uses", Some("3")),
        ("berth.dev/networks", Some("10.0.0.0/8, 2001:db8::/32")),
        ("berth.dev/approval", Some("true")),
    ]);
    let record = read(&id(), &bound, 1_000).expect("a token").record();
    assert_eq!(record.binding.names.as_str(), "rack1-*");
    assert_eq!(
        (record.binding.pool.as_str(), record.binding.uses, record.binding.approval),
        ("gpu", 3, true)
    );
    assert_eq!(record.binding.networks.len(), 2);
    let free = read(&id(), &secret(&[("kubernetes.io/x", Some("y"))]), 1_000).expect("a token").record();
    assert_eq!(free.binding, TokenBinding { uses: 1_000, ..TokenBinding::default() });
    assert_eq!(
        (free.created_by.as_str(), free.expires.to_string().as_str()),
        (MAKER, "2026-09-22T00:00:00Z")
    );
    for (key, value) in [
        ("berth.dev/names", "Rack_1"),
        ("berth.dev/pool", ""),
        ("berth.dev/uses", "0"),
        ("berth.dev/uses", "1001"),
        ("berth.dev/uses", "-1"),
        ("berth.dev/networks", "10.1.2.3/8"),
        ("berth.dev/networks", ""),
        ("berth.dev/approval", "yes"),
        ("berth.dev/name", "n1"),
    ] {
        let found = verdict(&secret(&[(key, Some(value))]));
        assert!(found.contains(&format!("its annotation {key} is not understood")), "{key}={value}: {found}");
    }
}

#[test]
fn a_description_is_bounded_and_has_no_control_characters() {
    let words = format!("a\u{1b}[2J\n{}", "é".repeat(400));
    let record = read(&id(), &secret(&[("description", Some(&words))]), 1_000).expect("a token").record();
    assert!(record.description.starts_with("a[2Jé") && record.description.len() <= 256);
}

#[test]
fn nothing_that_is_kept_shows_the_secret() {
    let known = read(&id(), &secret(&[]), 1_000).expect("a token");
    let shown = format!("{known:?} {:?}", known.record());
    assert!(!shown.contains(SECRET), "{shown}");
}
