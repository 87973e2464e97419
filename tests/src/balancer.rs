//! A real load balancer in front of servers: HAProxy in TCP mode, which hands on
//! the client's address by the PROXY protocol and asks `/readyz` who may get
//! machines.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::process::{Running, eventually, system_program};
use crate::{Server, http_get, own_address};

/// How long it may take to start on a busy machine.
const START: Duration = Duration::from_secs(10);

/// Where machines join, on an address of its own.
const PORT: u16 = 18443;

/// Where it says how the servers stand.
const STATS_PORT: u16 = 18484;

/// Who gets the next machine.
#[derive(Clone, Copy, Debug)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The first that is there.
    First,
}

/// HAProxy; killed when dropped.
pub struct Balancer {
    running: Running,
    address: Ipv4Addr,
}

impl Balancer {
    /// An address for a balancer: servers advertise it before it starts.
    #[must_use]
    pub fn address() -> Ipv4Addr {
        own_address()
    }

    /// Starts at an address, in front of these servers.
    #[must_use]
    pub fn start(directory: &Path, address: Ipv4Addr, balance: Balance, servers: &[Server]) -> Self {
        let path = directory.join("haproxy.cfg");
        std::fs::write(&path, configuration(address, balance, servers)).expect("a configuration file");
        let mut running = Running::start_command(system_program("haproxy"), |command| {
            command.arg("-db").arg("-f").arg(&path);
        });
        eventually("a balancer that listens", START, || {
            assert!(!running.has_ended(), "haproxy ended:\n{}\n{}", running.stdout(), running.stderr());
            TcpStream::connect((address, PORT)).ok()
        });
        Self { running, address }
    }

    /// Where machines join.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        endpoint(self.address)
    }

    /// Whether it gives machines to this server.
    #[must_use]
    pub fn is_up(&self, server: &Server) -> bool {
        let (_, body) = http_get((self.address, STATS_PORT).into(), "/;csv").unwrap_or_default();
        body.lines().map(|line| line.split(',').collect::<Vec<_>>()).any(|fields| {
            // haproxy management guide 9.1: pxname, svname, …, status is the 18th.
            fields.get(1) == Some(&server.name())
                && fields.get(17).is_some_and(|state| state.starts_with("UP"))
        })
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Running {
        &self.running
    }
}

/// Where a balancer at this address takes machines.
#[must_use]
pub(crate) fn endpoint(address: Ipv4Addr) -> SocketAddr {
    (address, PORT).into()
}

fn configuration(address: Ipv4Addr, balance: Balance, servers: &[Server]) -> String {
    let balance = match balance {
        Balance::RoundRobin => "roundrobin",
        Balance::First => "first",
    };
    let mut text = format!(
        "global\n  maxconn 4096\n\
         defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n  retries 3\n  option redispatch\n\
         listen stats\n  mode http\n  bind {address}:{STATS_PORT}\n  stats enable\n  stats uri /\n\
         frontend join\n  bind {address}:{PORT}\n  default_backend servers\n\
         backend servers\n  balance {balance}\n  option httpchk GET /readyz\n  default-server inter 200ms fall 1 rise 1\n"
    );
    for server in servers {
        let (join, health) = (server.endpoint(), server.health());
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  server {} {join} send-proxy-v2 check addr {} port {}",
            server.name(),
            health.ip(),
            health.port()
        );
    }
    text
}
