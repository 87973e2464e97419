//! What every ledger does, held to by the tests of each.

use berth_domain::identity::{MachineId, NodeIdentity, SpkiHash};
use berth_domain::name::PoolName;
use berth_domain::node::{Binding, CertificateTerms, NodeRecord};
use berth_domain::phase::Phase;

use super::*;
use crate::cluster::ledger::NodeLedger;

/// Of too many joins that ended the oldest go, but none that a node still names.
pub(in crate::cluster) fn the_oldest_that_ended_go<L: JoinLedger + NodeLedger>(ledger: &mut L) {
    let joins =
        [(1, State::Running), (2, State::Ended), (3, State::Ended), (4, State::Ended), (5, State::Ended)];
    for (at, state) in joins {
        let mut record = JoinRecord::begin(join(at), Timestamp::from_millis(at));
        record.reached.push((Phase::Authentication, record.started));
        record.state = state;
        ledger.keep_join(record).expect("kept");
    }
    ledger.keep_node(node(join(2))).expect("kept");
    ledger.prune_finished_beyond(2).expect("pruned");
    let kept = [1, 2, 3, 4, 5].map(|at| ledger.join(join(at)).expect("an answer").is_some());
    assert_eq!(kept, [true, true, false, true, true], "it goes on; a node names it; the oldest; the newest");
}

fn join(at: i64) -> JoinId {
    JoinId::of(&"aaaaaaaaaa".parse().expect("a token id"), SpkiHash::of(&at.to_be_bytes()))
}

fn node(join: JoinId) -> NodeRecord {
    let at = Timestamp::from_millis(0);
    let binding = Binding {
        identity: NodeIdentity { name: "n1".parse().expect("a name"), pool: PoolName::default() },
        machine: MachineId::of(b"machine"),
        key: SpkiHash::of(b"key"),
        join,
        labels: [].into(),
        taints: Vec::new(),
        certificate: CertificateTerms { serial: None, not_before: at, not_after: Timestamp::LAST },
        renewal: false,
        quota: 1,
    };
    NodeRecord::bind(None, None, &binding, at).expect("a free name")
}
