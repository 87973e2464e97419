//! The network of a world: a namespace with a bridge, where the control plane
//! listens and each machine has an address.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{SOON, command, succeed};

/// Makes the namespace and its bridge.
pub(crate) fn make(name: &str) -> Result<()> {
    ip(&["netns", "add", name])?;
    let of = ["-netns", name];
    ip(&[&of[..], &["link", "set", "lo", "up"]].concat())?;
    ip(&[&of[..], &["link", "add", BRIDGE, "type", "bridge"]].concat())?;
    ip(&[&of[..], &["address", "add", &format!("{CONTROL}/{PREFIX}"), "dev", BRIDGE]].concat())?;
    ip(&[&of[..], &["link", "set", BRIDGE, "up"]].concat())
}

/// Gives the machine with this first process a line to the bridge, an address and
/// the way out, which ends at the bridge.
pub(crate) fn connect(name: &str, number: u8, process: u32) -> Result<()> {
    let (line, process, of) = (line(number), process.to_string(), ["-netns", name]);
    // The line of a machine that was cut off goes a moment after it.
    let _gone = ip(&[&of[..], &["link", "delete", &line]].concat());
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", &process];
    ip(&[&of[..], &["link", "add", &line], &peer].concat())?;
    ip(&[&of[..], &["link", "set", &line, "master", BRIDGE, "up"]].concat())?;
    let own = format!("{}/{PREFIX}", address(number));
    for words in [
        ["link", "set", "lo", "up"].as_slice(),
        &["address", "add", &own, "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", &CONTROL.to_string()],
    ] {
        let mut inside = command("nsenter");
        succeed(
            {
                inside.args(["--target", &process, "--net", "ip"]).args(words);
                inside
            },
            SOON,
        )?;
    }
    Ok(())
}

/// Lays the line of a virtual machine to the bridge, if it is not there from an earlier
/// start of it.
pub(crate) fn lay_line(name: &str, number: u8) -> Result<()> {
    let (line, of) = (line(number), ["-netns", name]);
    if ip(&[&of[..], &["link", "show", &line]].concat()).is_ok() {
        return Ok(());
    }
    ip(&[&of[..], &["tuntap", "add", &line, "mode", "tap"]].concat())?;
    ip(&[&of[..], &["link", "set", &line, "master", BRIDGE, "up"]].concat())
}

/// The name of a machine's line, on the bridge's side.
pub(crate) fn line(number: u8) -> String {
    format!("m{number}")
}

/// Moves the calling thread into a namespace: what it starts from now on, threads
/// and processes, is in it too.
pub(crate) fn enter(name: &str) -> Result<()> {
    let path = place(name);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering {}", path.display()))
}

/// Where a namespace has its name.
pub(crate) fn place(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The address of the machine with this number.
#[must_use]
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, FIRST.saturating_add(number))
}

fn ip(words: &[&str]) -> Result<()> {
    let mut ip = command("ip");
    succeed(
        {
            ip.args(words);
            ip
        },
        SOON,
    )
    .map(drop)
}

/// A number that no machine has yet.
pub(crate) fn free_number(taken: &[u8]) -> Result<u8> {
    let Some(number) = (1..=MOST).find(|number| !taken.contains(number)) else {
        bail!("a world has room for {MOST} machines");
    };
    Ok(number)
}

/// The address of the bridge: the control plane's.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PREFIX: u8 = 24;
const BRIDGE: &str = "br0";
/// The last byte of machine 0's address.
const FIRST: u8 = 100;
const MOST: u8 = 100;
