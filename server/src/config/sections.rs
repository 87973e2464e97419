//! The sections of the configuration, each laid field by field.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_domain::name::NamePattern;
use berth_domain::profile::KubeletSettings;
use berth_telemetry::Share;

use super::file::{self, Configuration};
use super::lay::Lay;
use super::{Given, LogFormat, ProxyMode, TelemetryConfig, rules};
use crate::attendance::Terms;
use crate::bundle::BundleLimits;
use crate::bundle::shelf::BundleSettings;
use crate::listener::{Limits, ProxyProtocol};
use crate::policy::Policy;

/// Where things are and listen.
pub(super) struct Places {
    pub(super) data_dir: PathBuf,
    pub(super) join_listen: SocketAddr,
    pub(super) admin_socket: PathBuf,
    pub(super) health_listen: SocketAddr,
    pub(super) advertise: Option<String>,
    pub(super) server_names: Vec<String>,
}

pub(super) fn places(lay: &mut Lay, given: &mut Given, file: &mut Configuration) -> Places {
    let (everywhere, here) =
        (SocketAddr::from(([0, 0, 0, 0], 7443)), SocketAddr::from(([127, 0, 0, 1], 7480)));
    let data_dir =
        lay.path("dataDir", given.data_dir.take(), file.data_dir.take(), rules::default_data_dir());
    let join_listen = lay.shown("joinListen", given.join_listen.take(), file.join_listen, everywhere);
    let socket = data_dir.join("admin.sock");
    let admin_socket = lay.path("adminSocket", given.admin_socket.take(), file.admin_socket.take(), socket);
    let health_listen = lay.shown("healthListen", given.health_listen.take(), file.health_listen, here);
    let advertise = lay.maybe("advertise", given.advertise.take(), file.advertise.take());
    lay.check("advertise", rules::endpoint(advertise.as_deref()));
    let server_names = lay.list("serverNames", given.server_names.take(), file.server_names.take());
    lay.check("serverNames", rules::server_names(&server_names));
    Places { data_dir, join_listen, admin_socket, health_listen, advertise, server_names }
}

/// What nodes are told of their cluster.
pub(super) struct Cluster {
    pub(super) name: Option<String>,
    pub(super) api_endpoints: Vec<String>,
    pub(super) kubelet: KubeletSettings,
}

pub(super) fn cluster(lay: &mut Lay, given: &mut Given, file: file::Cluster) -> Cluster {
    let name = lay.maybe("cluster.name", given.cluster_name.take(), file.name);
    let api_endpoints = lay.list("cluster.apiEndpoints", given.api_endpoints.take(), file.api_endpoints);
    lay.check("cluster.apiEndpoints", rules::api_endpoints(&api_endpoints));
    let dns = lay.list("cluster.clusterDNS", given.cluster_dns.take(), file.cluster_dns);
    let domain = lay.maybe("cluster.clusterDomain", given.cluster_domain.take(), file.cluster_domain);
    let kubelet = lay.kubelet(file.kubelet.unwrap_or_default(), &dns, domain);
    Cluster { name, api_endpoints, kubelet }
}

/// The software of nodes, but for what pools say.
pub(super) fn bundle(lay: &mut Lay, given: &mut Given, file: file::BundleFile) -> BundleSettings {
    let usual = BundleLimits::default();
    BundleSettings {
        path: lay.maybe_path("bundle.path", given.bundle.take(), file.path),
        pools: BTreeMap::new(),
        limits: BundleLimits {
            bytes_per_second: lay.number(
                "bundle.bytesPerSecond",
                None,
                file.bytes_per_second,
                usual.bytes_per_second,
                rules::BANDWIDTHS,
            ),
            transfers: lay.number("bundle.transfers", None, file.transfers, usual.transfers, 1..=1_024),
            ..usual
        },
    }
}

/// The rules.
pub(super) fn policy(lay: &mut Lay, given: &mut Given, file: file::PolicyFile) -> Policy {
    let quota = given.certificates_per_name_and_hour.take();
    Policy {
        names: lay.shown("policy.names", given.names.take(), file.names, NamePattern::any()),
        certificate_lifetime: lay.period(
            "policy.certificateLifetime",
            given.certificate_lifetime.take(),
            file.certificate_lifetime,
            6 * 3_600,
            rules::LIFETIMES,
        ),
        certificates_per_name_and_hour: lay.number(
            "policy.certificatesPerNameAndHour",
            quota,
            file.certificates_per_name_and_hour,
            60,
            1..=10_000,
        ),
        approval: lay.shown(
            "policy.requireApproval",
            given.require_approval.take(),
            file.require_approval,
            false,
        ),
    }
}

/// The bounds that an operator may set.
pub(super) struct Bounds {
    pub(super) joins_in_flight: usize,
    pub(super) queue: u64,
    pub(super) connections_per_source: u32,
    pub(super) drain_pause: Duration,
}

pub(super) fn limits(lay: &mut Lay, given: &mut Given, file: file::LimitsFile) -> Bounds {
    let (in_flight, connections) = (given.joins_in_flight.take(), given.connections_per_source.take());
    let usual = Limits::default().connections_per_source;
    Bounds {
        joins_in_flight: lay.number(
            "limits.joinsInFlight",
            in_flight,
            file.joins_in_flight,
            256,
            1..=100_000,
        ),
        queue: lay.number("limits.queue", given.queue.take(), file.queue, 4_096, 0..=1_000_000),
        connections_per_source: lay.number(
            "limits.connectionsPerSource",
            connections,
            file.connections_per_source,
            usual,
            1..=100_000,
        ),
        drain_pause: lay.period(
            "limits.drainPause",
            given.drain_pause.take(),
            file.drain_pause,
            0,
            rules::PAUSES,
        ),
    }
}

pub(super) fn attendance(lay: &mut Lay, given: &mut Given, file: file::Attendance) -> Terms {
    let (interval, grace) = (given.heartbeat_interval.take(), given.grace_period.take());
    let interval_field = "attendance.heartbeatInterval";
    let terms = Terms {
        heartbeat_interval: lay.period(
            interval_field,
            interval,
            file.heartbeat_interval,
            10,
            rules::HEARTBEATS,
        ),
        grace: lay.period("attendance.gracePeriod", grace, file.grace_period, 40, rules::GRACES),
    };
    lay.check("attendance.gracePeriod", rules::grace(terms));
    terms
}

pub(super) fn proxy(lay: &mut Lay, given: &mut Given, file: file::Proxy) -> ProxyProtocol {
    let mode = lay.shown("proxyProtocol.mode", given.proxy_mode.take(), file.mode, ProxyMode::Refused);
    let from = lay.list("proxyProtocol.from", given.proxy_from.take(), file.from);
    lay.take_checked("proxyProtocol.from", rules::proxy(mode, &from), ProxyProtocol::Refused)
}

pub(super) fn telemetry(lay: &mut Lay, given: &mut Given, file: file::Telemetry) -> TelemetryConfig {
    let told = TelemetryConfig {
        otlp_endpoint: lay.maybe("telemetry.otlpEndpoint", given.otlp_endpoint.take(), file.otlp_endpoint),
        good_joins: Share::percent(lay.number(
            "telemetry.goodJoinsPercent",
            None,
            file.good_joins_percent,
            100,
            0..=100,
        )),
        log_format: lay.shown(
            "telemetry.logFormat",
            given.log_format.take(),
            file.log_format,
            LogFormat::Text,
        ),
        log_level: lay.shown("telemetry.logLevel", given.log_level.take(), file.log_level, "info".to_owned()),
    };
    lay.check("telemetry.otlpEndpoint", rules::collector(told.otlp_endpoint.as_deref()));
    told
}
