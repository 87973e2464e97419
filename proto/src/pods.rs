//! The network of pods: the words of configuration and attendance.

use berth_domain::pods::{MOST_RANGES, MOST_ROUTES, PodNetwork, PodRoute, PodRoutes, is_for_pods};
use ipnet::IpNet;

use crate::bounds::{Field, Malformed};
use crate::join::v1;

pub(crate) fn network_to_wire(network: PodNetwork) -> v1::PodNetwork {
    match network {
        PodNetwork::None => v1::PodNetwork::None,
        PodNetwork::Bridge => v1::PodNetwork::Bridge,
    }
}

/// A kind that is newer than this program is somebody else's to make.
pub(crate) fn network_from_wire(wire: i32) -> PodNetwork {
    match v1::PodNetwork::try_from(wire) {
        Ok(v1::PodNetwork::Bridge) => PodNetwork::Bridge,
        Ok(v1::PodNetwork::None | v1::PodNetwork::Unspecified) | Err(_) => PodNetwork::None,
    }
}

pub(crate) fn routes_to_wire(routes: &PodRoutes) -> v1::PodRoutes {
    let route =
        |route: &PodRoute| v1::PodRoute { range: route.range.to_string(), via: route.via.to_string() };
    v1::PodRoutes {
        own: routes.own.iter().map(ToString::to_string).collect(),
        others: routes.others.iter().map(route).collect(),
    }
}

pub(crate) fn routes_from_wire(wire: &v1::PodRoutes) -> Result<PodRoutes, Malformed> {
    let (own, others) = (Field("PodRoutes", "own"), Field("PodRoutes", "others"));
    own.count(wire.own.len(), MOST_RANGES)?;
    others.count(wire.others.len(), MOST_ROUTES)?;
    let range = |text: &String| -> Result<IpNet, Malformed> {
        let range: IpNet = own.parse(text)?;
        if is_for_pods(&range) { Ok(range.trunc()) } else { Err(own.invalid("it is no range of one node")) }
    };
    let route = |wire: &v1::PodRoute| -> Result<PodRoute, Malformed> {
        let (range, via) = (others.parse(&wire.range)?, others.parse(&wire.via)?);
        PodRoute::checked(range, via).ok_or_else(|| others.invalid("it is no route to one node's pods"))
    };
    Ok(PodRoutes {
        own: wire.own.iter().map(range).collect::<Result<_, _>>()?,
        others: wire.others.iter().map(route).collect::<Result<_, _>>()?,
    })
}
