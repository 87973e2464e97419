use std::net::Ipv4Addr;

use aws_lc_rs::hmac::{HMAC_SHA256, Key};
use berth_proto::join::v1;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_stream::once;
use tonic::{Code, Status};

use super::*;
use crate::machine::{Fleet, service};

/// A bare server in this process, and machines for it.
struct World {
    folder: TempDir,
    fleet: Fleet,
    serving: JoinHandle<Result<()>>,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::open(listen, &folder.path().join("rows")).await.expect("the server opens");
        let fleet = Fleet::new(server.address().expect("an address")).expect("a fleet");
        Self { folder, fleet, serving: tokio::spawn(server.serve()) }
    }

    /// What a reader of the file finds, in the order in which it was written.
    fn states(&self) -> Vec<String> {
        let database = Connection::open(self.folder.path().join("rows")).expect("the database");
        let mut states = database.prepare("SELECT state FROM joins ORDER BY rowid").expect("the table");
        let states = states.query_map([], |row| row.get(0)).expect("rows");
        states.collect::<Result<_, _>>().expect("a row")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn a_join_is_two_rows_of_one_machine() {
    let world = World::start().await;
    let _ready = join(&world.fleet, 1).await.expect("machine 1 joins");
    assert_eq!(world.states(), ["Issued", "Ready"]);
    let database = Connection::open(world.folder.path().join("rows")).expect("the database");
    let machines: u32 = database
        .query_row("SELECT count(DISTINCT machine) FROM joins", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(machines, 1);
}

#[tokio::test]
async fn who_does_not_know_the_secret_gets_nothing() {
    let world = World::start().await;
    let other = Key::new(HMAC_SHA256, b"another secret");
    let refused = machine::enroll(&world.fleet, 2, &other).await.map(drop).expect_err("no certificate");
    let status = refused.downcast_ref::<Status>().expect("the server's own word");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the proof does not hold"));
    assert_eq!(world.states(), [""; 0]);
}

#[tokio::test]
async fn nobody_is_ready_without_a_certificate() {
    let world = World::start().await;
    let line = world.fleet.as_stranger(3).await.expect("a stranger may connect");
    let mut service = service(line).await.expect("HTTP/2");
    let refused = service.join(once(v1::JoinRequest::default())).await.map(drop).expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(world.states(), [""; 0]);
}
