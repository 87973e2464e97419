//! How much of a survey may go into one message. Machine facts are written by
//! devices and vendors: a hostile USB device must not fill a message or a row.

use std::collections::{BTreeMap, BTreeSet};

use super::HostFacts;

/// The longest text of one fact, in bytes.
pub const LONGEST_TEXT: usize = 256;
/// The longest text of all CPU features, in bytes: 512 of them at 8 bytes each. The
/// kernel's words for x86 have some 7 with the space behind them.
pub const LONGEST_FEATURES: usize = 4096;
/// The most NUMA nodes.
pub const MOST_NUMA_NODES: usize = 64;
/// The most sizes of huge pages, of the machine or of one NUMA node.
pub const MOST_HUGE_PAGE_SIZES: usize = 8;
/// The most disks.
pub const MOST_DISKS: usize = 128;
/// The most network links.
pub const MOST_LINKS: usize = 128;
/// The most addresses of one link.
pub const MOST_ADDRESSES: usize = 32;
/// The most PCI devices.
pub const MOST_PCI_DEVICES: usize = 256;
/// The most cgroup controllers.
pub const MOST_CONTROLLERS: usize = 32;
/// The most swap areas.
pub const MOST_SWAPS: usize = 32;
/// The most container runtimes.
pub const MOST_RUNTIMES: usize = 8;
/// The most entries of each of the survey's short lists and maps: modules,
/// settings, directories, ports, tools, leftovers.
pub const MOST_NODE_FACTS: usize = 64;

/// A text that a machine or peer gave, fit to be carried and shown: no white
/// space around it, no control characters, at most [`LONGEST_TEXT`] bytes.
#[must_use]
pub fn text(raw: &str) -> String {
    let mut out = String::new();
    for character in raw.trim().chars() {
        let character = if character.is_control() { '\u{fffd}' } else { character };
        if out.len() + character.len_utf8() > LONGEST_TEXT {
            break;
        }
        out.push(character);
    }
    // The cut may have come right behind white space.
    out.truncate(out.trim_end().len());
    out
}

/// Whether [`text`] would leave it as it is: nearly every text, most of them one word,
/// and a set of facts has a hundred.
#[must_use]
pub fn is_text(text: &str) -> bool {
    text.len() <= LONGEST_TEXT
        && (is_word(text.as_bytes())
            || text.trim().len() == text.len() && !text.chars().any(char::is_control))
}

/// CPU features from a line of the kernel's words: sorted, each once, one space between
/// them, at most [`LONGEST_FEATURES`] bytes. What is not printable ASCII is no word of
/// the kernel and left out; what is too much ends behind a whole word.
#[must_use]
pub fn features(raw: &str) -> String {
    let words = raw.split_whitespace().filter(|word| is_word(word.as_bytes()));
    let mut out = String::new();
    for word in words.collect::<BTreeSet<_>>() {
        let space = if out.is_empty() { "" } else { " " };
        if out.len() + space.len() + word.len() > LONGEST_FEATURES {
            break;
        }
        out.push_str(space);
        out.push_str(word);
    }
    out
}

/// Whether [`features`] would leave them as they are.
#[must_use]
pub fn are_features(text: &str) -> bool {
    let mut last: &[u8] = b"";
    let follows = |word| {
        let follows = last < word;
        last = word;
        follows && is_word(word)
    };
    text.is_empty()
        || text.len() <= LONGEST_FEATURES && text.as_bytes().split(|byte| *byte == b' ').all(follows)
}

/// Printable ASCII without a space.
fn is_word(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_graphic)
}

impl HostFacts {
    /// The same facts within the bounds of this file: longer texts and lists
    /// are cut at their end.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.bound_hardware();
        self.bound_system();
        self.bound_node();
        self
    }

    fn bound_hardware(&mut self) {
        options([&mut self.machine, &mut self.cpu.vendor, &mut self.cpu.model]);
        if !are_features(&self.cpu.features) {
            self.cpu.features = features(&self.cpu.features);
        }
        self.huge_pages.truncate(MOST_HUGE_PAGE_SIZES);
        each(&mut self.numa_nodes, MOST_NUMA_NODES, |node| {
            cut(&mut node.cpus);
            node.huge_pages.truncate(MOST_HUGE_PAGE_SIZES);
        });
        each(&mut self.disks, MOST_DISKS, |disk| {
            cut(&mut disk.name);
            cut(&mut disk.kind);
            options([&mut disk.model]);
        });
        each(&mut self.links, MOST_LINKS, |link| {
            cut(&mut link.name);
            options([&mut link.mac, &mut link.state, &mut link.driver]);
            texts(&mut link.addresses, MOST_ADDRESSES);
        });
        each(&mut self.pci_devices, MOST_PCI_DEVICES, |device| {
            cut(&mut device.address);
            options([&mut device.vendor, &mut device.device, &mut device.driver]);
        });
        if let Some(tpm) = &mut self.tpm {
            cut(&mut tpm.name);
            options([&mut tpm.endorsement_key]);
        }
    }

    fn bound_system(&mut self) {
        options([&mut self.kernel.release, &mut self.kernel.version]);
        options([&mut self.os.id, &mut self.os.version, &mut self.os.pretty_name]);
        options([
            &mut self.identity.hostname,
            &mut self.identity.product_uuid,
            &mut self.identity.product_name,
            &mut self.identity.product_vendor,
            &mut self.identity.product_serial,
        ]);
        options([&mut self.virtualization, &mut self.container]);
        options([&mut self.clock.service, &mut self.clock.source]);
        texts(&mut self.cgroup.controllers, MOST_CONTROLLERS);
        each(&mut self.swaps, MOST_SWAPS, |swap| cut(&mut swap.name));
    }

    fn bound_node(&mut self) {
        each(&mut self.runtimes, MOST_RUNTIMES, |runtime| {
            cut(&mut runtime.name);
            cut(&mut runtime.socket);
            options([&mut runtime.version, &mut runtime.problem]);
        });
        if let Some(kubelet) = &mut self.kubelet {
            cut(&mut kubelet.path);
            options([&mut kubelet.version]);
        }
        map(&mut self.modules, |_| ());
        map(&mut self.sysctls, cut);
        map(&mut self.tools, |path| options([path]));
        each(&mut self.directories, MOST_NODE_FACTS, |directory| {
            cut(&mut directory.path);
            options([&mut directory.file_system]);
        });
        each(&mut self.ports, MOST_NODE_FACTS, |port| {
            if let Some(holder) = &mut port.holder {
                cut(&mut holder.name);
            }
        });
        each(&mut self.leftovers, MOST_NODE_FACTS, |leftover| cut(&mut leftover.path));
    }
}

fn cut(value: &mut String) {
    if !is_text(value) {
        *value = text(value);
    }
}

fn options<const N: usize>(values: [&mut Option<String>; N]) {
    values.into_iter().flatten().for_each(cut);
}

fn texts(values: &mut Vec<String>, most: usize) {
    each(values, most, cut);
}

fn each<T>(values: &mut Vec<T>, most: usize, bound: impl FnMut(&mut T)) {
    values.truncate(most);
    values.iter_mut().for_each(bound);
}

fn map<V>(values: &mut BTreeMap<String, V>, bound: impl Fn(&mut V)) {
    let bounded = std::mem::take(values).into_iter().take(MOST_NODE_FACTS).map(|(key, mut value)| {
        bound(&mut value);
        (text(&key), value)
    });
    *values = bounded.collect();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::{Cpu, Disk, Link};

    proptest! {
        #[test]
        fn what_is_a_text_stays_as_it_is_and_only_that(raw in "[ a\\t\u{e9}\u{7f}\u{a0}x]{0,8}|x{250,260}") {
            prop_assert_eq!(is_text(&raw), text(&raw) == raw);
        }

        #[test]
        fn what_are_features_stay_as_they_are_and_only_those(raw in "([ab]{0,2}[ \\t\u{e9}\u{7f}\u{a0}]?){0,4}|x{4090,4100}") {
            prop_assert_eq!(are_features(&raw), features(&raw) == raw);
            prop_assert!(are_features(&features(&raw)));
        }
    }

    #[test]
    fn features_are_sorted_and_cut_behind_a_whole_word() {
        assert_eq!(features("\tsse  fpu sse\u{1b}[2J \u{e9} sse\n"), "fpu sse");
        let usual: Vec<String> = (0..600).map(|n| format!("avx{n:04}")).collect();
        let cut = features(&usual.join(" "));
        assert_eq!(cut, usual[..512].join(" "), "512 of usual length fit");
        let long: Vec<String> = (10..99).map(|n| format!("{n}{}", "x".repeat(98))).collect();
        assert_eq!(features(&long.join(" ")), long[..40].join(" "));
        assert_eq!(features(&"x".repeat(LONGEST_FEATURES + 1)), "");
    }

    #[test]
    fn a_talkative_device_fills_no_message() {
        let chatter = format!(" \u{1b}[31m{} ", "é".repeat(4096));
        let link = Link { addresses: vec![chatter.clone(); 1000], ..Link::default() };
        let facts = HostFacts {
            disks: vec![Disk { model: Some(chatter), ..Disk::default() }; 10_000],
            links: vec![link; 3],
            cpu: Cpu { features: "z y\n".repeat(4096), ..Cpu::default() },
            sysctls: (0..1000).map(|n| (format!("{n}"), String::new())).collect(),
            ..HostFacts::default()
        };
        let bounded = facts.bounded();
        assert_eq!(bounded.disks.len(), MOST_DISKS);
        assert_eq!(bounded.sysctls.len(), MOST_NODE_FACTS);
        assert_eq!(bounded.cpu.features, "y z");
        assert!(bounded.links.iter().all(|link| link.addresses.len() == MOST_ADDRESSES));
        let model = bounded.disks[0].model.as_deref().expect("a model");
        assert!(model.len() <= LONGEST_TEXT && model.chars().all(|c| !c.is_control()), "{model}");
        assert_eq!(bounded.clone().bounded(), bounded);
    }
}
