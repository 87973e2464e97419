//! What differs between Linux distributions, as one table: how a person installs
//! what is missing, what the packages are called, and where programs that no
//! package brings may stand.

/// One family of distributions.
#[derive(Debug, PartialEq, Eq)]
pub struct Distribution {
    /// `ID` or a word of `ID_LIKE` of `os-release(5)`, or `ID.VARIANT_ID` where
    /// only a variant is meant.
    ids: &'static [&'static str],
    /// The command that installs packages, without their names; absent where
    /// software is part of the image.
    install: Option<&'static str>,
    /// The packages' names.
    packages: Packages,
    /// Where programs may stand that no package brings: `/usr` may be read-only.
    pub programs: &'static str,
    /// Where the kubelet looks for volume plugins, where its own place below `/usr`
    /// cannot be made.
    pub volume_plugins: Option<&'static str>,
}

/// What packages bring a node's programs.
#[derive(Debug, PartialEq, Eq)]
struct Packages {
    mount: &'static str,
    conntrack: &'static str,
    packet_filter: &'static str,
    runtime: &'static str,
    kubelet: &'static str,
}

/// Something that a package brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// mount(8).
    Mount,
    /// conntrack(8).
    Conntrack,
    /// iptables(8) or nft(8).
    PacketFilter,
    /// containerd and runc.
    Runtime,
    /// The kubelet.
    Kubelet,
}

impl Distribution {
    /// The family that `os-release` names: by `ID` with its variant, by `ID`, then
    /// by each word of `ID_LIKE`. One that is not known gets names that are most
    /// common and no command.
    #[must_use]
    pub fn of(id: &str, variant: Option<&str>, like: &str) -> &'static Self {
        let of_variant = variant.map(|variant| format!("{id}.{variant}"));
        let named = |name: &str| TABLE.iter().find(|row| row.ids.contains(&name));
        of_variant
            .as_deref()
            .and_then(named)
            .or_else(|| named(id))
            .or_else(|| like.split_whitespace().find_map(named))
            .unwrap_or(&UNKNOWN)
    }

    /// The package that brings this.
    #[must_use]
    pub const fn package(&self, software: Software) -> &'static str {
        match software {
            Software::Mount => self.packages.mount,
            Software::Conntrack => self.packages.conntrack,
            Software::PacketFilter => self.packages.packet_filter,
            Software::Runtime => self.packages.runtime,
            Software::Kubelet => self.packages.kubelet,
        }
    }

    /// The command that installs this, or what to do where no command does.
    #[must_use]
    pub fn install(&self, software: Software) -> Option<String> {
        if self.packages == IN_THE_IMAGE && matches!(software, Software::Runtime | Software::Kubelet) {
            return Some(format!("put it below {}, or give the node a bundle", self.programs));
        }
        self.install.map(|install| format!("{install} {}", self.package(software)))
    }
}

impl Default for &Distribution {
    fn default() -> Self {
        &UNKNOWN
    }
}

const DEBIAN: Packages = Packages {
    mount: "mount",
    conntrack: "conntrack",
    packet_filter: "iptables",
    runtime: "containerd",
    kubelet: "kubelet",
};

const RED_HAT: Packages = Packages {
    mount: "util-linux",
    conntrack: "conntrack-tools",
    packet_filter: "iptables-nft",
    runtime: "containerd",
    kubelet: "kubelet",
};

const SUSE: Packages = Packages {
    mount: "util-linux-systemd",
    conntrack: "conntrack-tools",
    packet_filter: "iptables",
    runtime: "containerd",
    kubelet: "kubernetes-kubelet",
};

const IN_THE_IMAGE: Packages = Packages {
    mount: "util-linux",
    conntrack: "conntrack-tools",
    packet_filter: "iptables",
    runtime: "containerd",
    kubelet: "kubelet",
};

const VOLUME_PLUGINS: Option<&str> = Some("/var/lib/kubelet/volume-plugins");

static UNKNOWN: Distribution = Distribution {
    ids: &[],
    install: None,
    packages: DEBIAN,
    programs: "/usr/local/bin",
    volume_plugins: None,
};

static TABLE: [Distribution; 7] = [
    Distribution {
        ids: &["debian", "ubuntu"],
        install: Some("apt-get install"),
        packages: DEBIAN,
        programs: "/usr/local/bin",
        volume_plugins: None,
    },
    // Software goes into the image, or as a layer on it that the next boot brings.
    Distribution {
        ids: &["fedora.coreos", "rhel.coreos", "rhcos", "fedora.iot"],
        install: Some("rpm-ostree install --apply-live"),
        packages: RED_HAT,
        programs: "/usr/local/bin",
        volume_plugins: VOLUME_PLUGINS,
    },
    Distribution {
        ids: &["rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn"],
        install: Some("dnf install"),
        packages: RED_HAT,
        programs: "/usr/local/bin",
        volume_plugins: None,
    },
    Distribution {
        ids: &["opensuse-microos", "sl-micro", "sle-micro", "suse-microos"],
        install: Some("transactional-update pkg install"),
        packages: SUSE,
        programs: "/usr/local/bin",
        volume_plugins: VOLUME_PLUGINS,
    },
    Distribution {
        ids: &["suse", "sles", "opensuse", "opensuse-leap", "opensuse-tumbleweed"],
        install: Some("zypper install"),
        packages: SUSE,
        programs: "/usr/local/bin",
        volume_plugins: None,
    },
    // Here /usr is read-only as a whole, /usr/local with it.
    Distribution {
        ids: &["flatcar", "coreos", "cos", "bottlerocket", "ubuntu-core"],
        install: None,
        packages: IN_THE_IMAGE,
        programs: "/opt/bin",
        volume_plugins: VOLUME_PLUGINS,
    },
    Distribution {
        ids: &["arch", "archlinux"],
        install: Some("pacman -S"),
        packages: Packages { mount: "util-linux", conntrack: "conntrack-tools", ..DEBIAN },
        programs: "/usr/local/bin",
        volume_plugins: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_known_by_its_id_its_variant_or_what_it_is_like() {
        let conntrack = |id, variant, like| {
            Distribution::of(id, variant, like).install(Software::Conntrack).unwrap_or_default()
        };
        assert_eq!(conntrack("debian", None, ""), "apt-get install conntrack");
        assert_eq!(conntrack("linuxmint", None, "ubuntu debian"), "apt-get install conntrack");
        assert_eq!(conntrack("rocky", None, "rhel centos fedora"), "dnf install conntrack-tools");
        assert_eq!(conntrack("opensuse-leap", None, "suse opensuse"), "zypper install conntrack-tools");
        let layered = conntrack("fedora", Some("coreos"), "");
        assert!(layered.starts_with("rpm-ostree install"), "{layered}");
        assert_eq!(conntrack("fedora", Some("server"), ""), "dnf install conntrack-tools");
        assert_eq!(conntrack("nobody", None, "knows"), "");
    }

    #[test]
    fn where_usr_is_read_only_programs_stand_elsewhere() {
        let flatcar = Distribution::of("flatcar", None, "coreos");
        assert_eq!(flatcar.programs, "/opt/bin");
        assert!(flatcar.install(Software::Kubelet).is_some_and(|words| words.contains("/opt/bin")));
        assert_eq!(flatcar.install(Software::Mount), None, "nobody installs that there");
    }
}
