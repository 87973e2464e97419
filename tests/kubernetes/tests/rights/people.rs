//! Approving, denying and banning: in one's own name, and nothing beside.

use berth_kubernetes::Api;
use serde_json::{Value, json};

use crate::cases::Body::Json;
use crate::cases::{Case, Expected, of};
use crate::refused_by;
use crate::world::{ALSO_WAITING, NODE_JOINS, WAITING, World, machine_ban, node_join, set};

pub(crate) fn table(world: &World) -> Vec<Case<'_>> {
    let admin = world.cluster.api();
    let patch = |asker, expected, name, join: &str, body: Value| {
        of(asker, expected, name, "PATCH", format!("{NODE_JOINS}/{join}"), Json(body))
    };
    let word = |by: &str| json!({"spec": {"approval": {"decision": "Approved", "by": by}}});
    let denied =
        json!({"spec": {"approval": {"decision": "Denied", "by": "kubernetes-admin", "reason": "unknown"}}});
    let forged = || refused_by("berth-people-joins", "is who you are");
    let record = || refused_by("berth-people-joins", "spec.approval and nothing else");
    let bans = "/apis/berth.dev/v1alpha1/machinebans";
    let ban = |asker, expected, name, by| of(asker, expected, name, "POST", bans, Json(machine_ban('b', by)));
    let mut signed = node_join("j-gggggggggggggggg");
    set(&mut signed, "/spec", "approval", json!({"decision": "Approved", "by": "bob"}));
    let mut silent = node_join("j-iiiiiiiiiiiiiiii");
    set(&mut silent, "/spec", "approval", Value::Null);
    let made = |asker, expected, name, body: Value| of(asker, expected, name, "POST", NODE_JOINS, Json(body));
    let (alice, rita): (&Api, &Api) = (&world.alice, &world.rita);
    vec![
        patch(alice, forged(), "an operator approves as bob", WAITING, word("bob")),
        patch(alice, forged(), "an operator approves as Berth", WAITING, word(crate::world::SERVER)),
        patch(admin, forged(), "an administrator approves as alice", WAITING, word("alice")),
        patch(rita, forged(), "one who may write NodeJoins approves as alice", WAITING, word("alice")),
        patch(
            alice,
            record(),
            "an operator gives the join another key",
            WAITING,
            json!({"spec": {"node": {
                "key": "a".repeat(64), "machine": "b".repeat(64),
                "certificate": {"serial": "1", "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-01T01:00:00Z"},
            }}}),
        ),
        patch(
            alice,
            record(),
            "an operator changes when it began",
            WAITING,
            json!({"spec": {"started": "2020-01-01T00:00:00Z"}}),
        ),
        patch(alice, Expected::Done, "an operator approves in her own name", WAITING, word("alice")),
        patch(alice, Expected::Done, "she may say it again", WAITING, word("alice")),
        patch(
            alice,
            Expected::Done,
            "others may label it afterwards",
            WAITING,
            json!({"metadata": {"labels": {"rack": "1"}}}),
        ),
        patch(
            rita,
            Expected::Done,
            "and leave the word of another as it is",
            WAITING,
            json!({"metadata": {"labels": {"rack": "2"}}}),
        ),
        patch(admin, Expected::Done, "an administrator denies in their own name", ALSO_WAITING, denied),
        made(alice, Expected::Rbac, "an operator makes a NodeJoin", node_join("j-gggggggggggggggg")),
        made(rita, record(), "one who may write NodeJoins makes one", node_join("j-gggggggggggggggg")),
        made(admin, forged(), "an administrator makes one that is approved as bob", signed),
        made(admin, Expected::Done, "an administrator makes one on which nobody has said a word", silent),
        made(
            admin,
            Expected::Done,
            "an administrator puts one back from a backup",
            node_join("j-hhhhhhhhhhhhhhhh"),
        ),
        ban(alice, refused_by("berth-people-bans", "is who you are"), "an operator bans as bob", "bob"),
        ban(alice, Expected::Done, "an operator bans in her own name", "alice"),
    ]
}
