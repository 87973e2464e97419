//! Rounds of joins, at Berth's server and at the bare one in turn, and what each join costs
//! its server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_domain::token::JoinToken;
use tokio::task::JoinSet;

use crate::bare;
use crate::floor::Floor;
use crate::machine::{Fleet, Node};
use crate::meter::{Cpu, per, sleep_until_quiet};

/// A server, and the machines that join at it.
pub(crate) struct Leg {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) server: Cpu,
}

/// Of each round that is counted, microseconds.
#[derive(Default)]
pub(crate) struct Rounds {
    /// The cryptography of a join.
    pub(crate) floors: Vec<f64>,
    /// A join at Berth's server.
    pub(crate) joins: Vec<f64>,
    /// A join at the bare server.
    pub(crate) bare: Vec<f64>,
}

impl Rounds {
    /// A round for each token, with so many joins at either server.
    pub(crate) async fn play(berth: &Leg, bare: &Leg, tokens: &[JoinToken], joins: usize) -> Result<Self> {
        let floor = Floor::new()?;
        let mut rounds = Self::default();
        for (round, token) in tokens.iter().enumerate() {
            let first = round * joins;
            sleep_until_quiet(&berth.server).await?;
            let floor_before = floor.join()?;
            let before = berth.server.spent()?;
            let met = crowd(&berth.fleet, token, first, joins).await?;
            let cost = per(berth.server.since(before)?, joins)?;
            let floor = floor_before.min(floor.join()?);
            // Machines that only vanished would be looked for while others join.
            leave(met).await?;
            // Neither may still be at work on the core when the other is measured.
            sleep_until_quiet(&berth.server).await?;
            let bare = at_bare(bare, first, joins).await?;
            // The first round fills caches and pools: it is not counted.
            if round > 0 {
                rounds.floors.push(floor);
                rounds.joins.push(cost);
                rounds.bare.push(bare);
            }
        }
        Ok(rounds)
    }
}

/// A round at the bare server: microseconds of a join.
async fn at_bare(leg: &Leg, first: usize, joins: usize) -> Result<f64> {
    sleep_until_quiet(&leg.server).await?;
    let before = leg.server.spent()?;
    let met = in_flight(first, joins, |number| {
        let fleet = Arc::clone(&leg.fleet);
        async move { bare::join(&fleet, number).await }
    })
    .await?;
    let cost = per(leg.server.since(before)?, joins)?;
    drop(met);
    sleep_until_quiet(&leg.server).await?;
    Ok(cost)
}

/// Lets `count` machines join at Berth's server.
pub(crate) async fn crowd(
    fleet: &Arc<Fleet>,
    token: &JoinToken,
    first: usize,
    count: usize,
) -> Result<Vec<Node>> {
    in_flight(first, count, |number| {
        let (fleet, token) = (Arc::clone(fleet), token.clone());
        async move { fleet.join(&token, number).await }
    })
    .await
}

/// Lets `count` machines join, [`IN_FLIGHT`] at a time.
async fn in_flight<T, F>(first: usize, count: usize, join: impl Fn(usize) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut joined = Vec::with_capacity(count);
    for number in first..first + count {
        if under_way.len() >= IN_FLIGHT {
            joined.push(under_way.join_next().await.context("a join is under way")???);
        }
        let join = join(number);
        under_way.spawn(async move { join.await.with_context(|| format!("machine {number}")) });
    }
    while let Some(node) = under_way.join_next().await {
        joined.push(node??);
    }
    Ok(joined)
}

/// Lets machines leave as an operator's `berth-agent leave` does, some at a time.
async fn leave(nodes: Vec<Node>) -> Result<()> {
    let mut leaving = JoinSet::new();
    for mut node in nodes {
        if leaving.len() >= IN_FLIGHT {
            leaving.join_next().await.context("a machine is leaving")???;
        }
        leaving.spawn(async move { node.leave().await });
    }
    while let Some(left) = leaving.join_next().await {
        left??;
    }
    Ok(())
}

/// Joins under way at one time.
const IN_FLIGHT: usize = 64;
