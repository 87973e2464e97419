//! One contract for every backend: each behaviour is written once and run by the
//! embedded store, by the double in memory, and by objects of a real API server.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where its world is not as arranged"
)]

mod away;
mod calls;
mod embedded;
mod faults;
mod fixtures;
mod joins;
mod kill;
mod killed;
mod kubernetes;
mod mortal;
mod nodes;
mod people;
mod replicas;
mod sweeping;
mod tokens;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use berth_domain::timestamp::Timestamp;
use berth_server::cluster::Sweep;
use berth_server::cluster::bootstrap::BootstrapTokens;
use berth_server::cluster::bootstrap::memory::MemorySecrets;
use berth_server::cluster::embedded::{Embedded, Settings};
use berth_server::cluster::memory::Memory;
use berth_server::ports::Cluster;
use zeroize::Zeroizing;

/// A backend, and how it comes to clean up.
#[async_trait]
trait Backend: Cluster {
    /// What ended long before that moment goes.
    async fn tidy(&self, at: Timestamp);
}

#[async_trait]
impl Backend for Memory {
    async fn tidy(&self, at: Timestamp) {
        joins::work(self, at).await;
    }
}

#[async_trait]
impl Backend for BootstrapTokens<Memory> {
    async fn tidy(&self, at: Timestamp) {
        joins::work(self, at).await;
    }
}

#[async_trait]
impl Backend for Embedded {
    async fn tidy(&self, at: Timestamp) {
        joins::work(self, at).await;
    }
}

/// A backend on which the server judges readiness.
trait Swept: Backend + Sweep {}

impl<T: Backend + Sweep> Swept for T {}

fn open(path: &Path) -> Arc<Embedded> {
    Embedded::open(path, &Settings::default()).expect("a store in a fresh directory")
}

/// The double with kubeadm's tokens laid over it: nothing else may change.
fn below_bootstrap_tokens() -> Arc<BootstrapTokens<Memory>> {
    let secrets = Arc::new(MemorySecrets::default());
    Arc::new(BootstrapTokens::over(Arc::default(), secrets, Zeroizing::new([5; 32])))
}

/// Makes of each behaviour a test of every backend.
macro_rules! contract {
    (everywhere { $($port:ident: $($behaviour:ident),+ $(,)?;)+ }
     on_one_machine { $($beside:ident: $($own:ident),+ $(,)?;)+ }) => {
        contract! { here $($port: $($behaviour),+;)+ $($beside: $($own),+;)+ }

        mod in_kubernetes {
            $(mod $port {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let Some(world) = crate::kubernetes::World::fresh().await else { return };
                    let backend = world.replica().await;
                    crate::$port::$behaviour(backend.clone()).await;
                    backend.close().await;
                })+
            })+
        }
    };
    (here $($port:ident: $($behaviour:ident),+;)+) => {
        mod in_memory {
            $(mod $port {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    crate::$port::$behaviour(std::sync::Arc::new(crate::Memory::default())).await;
                })+
            })+
        }

        mod below_bootstrap_tokens {
            $(mod $port {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    crate::$port::$behaviour(crate::below_bootstrap_tokens()).await;
                })+
            })+
        }

        mod in_sqlite {
            $(mod $port {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let directory = tempfile::tempdir().expect("a temporary directory");
                    let store = crate::open(&directory.path().join("store.db"));
                    crate::$port::$behaviour(store.clone()).await;
                    store.close().await;
                })+
            })+
        }
    };
}

contract! {
    everywhere {
    tokens:
        a_token_is_found_as_it_was_minted,
        an_id_is_minted_once,
        a_token_of_one_use_is_good_for_one_of_many_keys,
        a_token_of_some_uses_is_good_for_as_many_keys,
        the_same_key_may_repeat_and_is_recorded_once,
        an_unknown_token_is_rejected,
        a_revoked_token_is_rejected_even_for_the_key_that_used_it,
        a_token_ends_at_its_moment,
        a_token_bound_to_a_network_is_refused_elsewhere,
        tokens_are_listed_newest_first_and_dropped_when_long_over;
    joins:
        an_event_is_taken_into_its_record_and_appended,
        entries_come_in_order_and_in_pages,
        every_change_is_told,
        a_repeated_refusal_fills_no_store,
        unproven_joins_are_bounded,
        a_join_that_ended_is_forgotten_after_a_week,
        a_refused_redemption_changes_nothing;
    nodes:
        a_name_goes_to_the_first_of_two_machines,
        one_name_under_a_race_has_one_machine,
        a_machine_reclaims_its_name_with_a_new_key,
        a_renewed_key_takes_over_when_it_is_first_used,
        certificates_are_counted_against_the_quota,
        each_certificate_has_one_earlier_event,
        what_a_signer_has_chosen_is_kept,
        a_ban_refuses_name_and_key_until_it_is_lifted,
        a_ban_outlives_its_name,
        a_second_ban_changes_nothing,
        an_unknown_node_is_refused,
        leaving_frees_the_name,
        an_operator_frees_a_name,
        a_node_goes_from_bound_to_ready,
        readiness_is_recorded_when_it_changes,
        a_heard_node_is_seen_at_once,
        nodes_are_listed_by_name;
    }
    on_one_machine {
    sweeping:
        a_silent_node_is_not_ready_and_a_heard_one_stays,
        a_swept_node_becomes_ready_again;
    }
}
