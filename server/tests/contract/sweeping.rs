//! What every `Sweep` promises.

use std::sync::Arc;
use std::time::Duration;

use berth_domain::diagnosis::Code;
use berth_domain::node::Readiness;
use berth_server::ports::Observation;

use crate::Swept;
use crate::fixtures::{binding, events_of, join, later, name, now, the_node};

const GRACE: Duration = Duration::from_secs(30);

async fn ready(cluster: &Arc<dyn Swept>, node: &str) {
    cluster.bind(&binding(node, node, node), now()).await.expect("a free name");
    cluster.observe(&name(node), Observation::Ready, now()).await.expect("observed");
}

pub(crate) async fn a_silent_node_is_not_ready_and_a_heard_one_stays(cluster: Arc<dyn Swept>) {
    for node in ["heard", "silent", "silent-too"] {
        ready(&cluster, node).await;
    }
    cluster.bind(&binding("bound", "bound", "bound"), now()).await.expect("a free name");
    cluster.observe(&name("heard"), Observation::Heard, later(20)).await.expect("observed");
    assert_eq!(cluster.sweep(GRACE, later(30)).await.expect("swept"), 0, "the grace is not over");
    assert_eq!(cluster.sweep(GRACE, later(31)).await.expect("swept"), 2);
    assert_eq!(cluster.sweep(GRACE, later(32)).await.expect("swept"), 0, "once is enough");

    let silent = the_node(&*cluster, "silent").await.record;
    let Readiness::NotReady { why } = silent.readiness else {
        panic!("{:?} is not NotReady", silent.readiness);
    };
    assert_eq!(why.code(), Code::NodeNotReady);
    assert!(why.cause().contains(&now().to_string()), "{}", why.cause());
    assert_eq!(events_of(&*cluster, join("silent")).await, ["Authorized", "Ready", "NotReady"]);
    assert_eq!(the_node(&*cluster, "heard").await.record.readiness, Readiness::Ready);
    assert_eq!(the_node(&*cluster, "bound").await.record.readiness, Readiness::Bound);
}

pub(crate) async fn a_swept_node_becomes_ready_again(cluster: Arc<dyn Swept>) {
    ready(&cluster, "n1").await;
    assert_eq!(cluster.sweep(GRACE, later(60)).await.expect("swept"), 1);
    cluster.observe(&name("n1"), Observation::Ready, later(61)).await.expect("observed");
    let node = the_node(&*cluster, "n1").await.record;
    assert_eq!((node.readiness, node.last_seen), (Readiness::Ready, later(61)));
    assert_eq!(cluster.sweep(GRACE, later(90)).await.expect("swept"), 0);
    assert_eq!(events_of(&*cluster, join("n1")).await, ["Authorized", "Ready", "NotReady", "Ready"]);
}
