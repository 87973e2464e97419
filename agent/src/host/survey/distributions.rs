//! Each distribution is known by the words of its own `os-release`, wherever that file
//! is. They are not at hand where this is tested: their words are, as they write them.

use std::fs;

use super::system::distribution;
use crate::plan::Software;

/// A distribution, the words of its `os-release` that matter, the command that installs
/// conntrack there, and whether `/usr` is the image's.
struct Known {
    name: &'static str,
    release: &'static str,
    install: Option<&'static str>,
    image: bool,
}

#[test]
fn each_distribution_is_known_by_its_own_words() {
    for path in ["etc", "usr/lib"] {
        for Known { name, release, install, image } in KNOWN {
            let root = tempfile::tempdir().expect("a root");
            fs::create_dir_all(root.path().join(path)).expect("a directory");
            fs::write(root.path().join(path).join("os-release"), release).expect("a file");
            let found = distribution(root.path());
            assert_eq!(found.install(Software::Conntrack).as_deref(), install, "{name}");
            assert_eq!(found.volume_plugins.is_some(), image, "{name}");
        }
    }
}

const APT: Option<&str> = Some("apt-get install conntrack");
const DNF: Option<&str> = Some("dnf install conntrack-tools");
const OSTREE: Option<&str> = Some("rpm-ostree install --apply-live conntrack-tools");
const ZYPPER: Option<&str> = Some("zypper install conntrack-tools");
const TRANSACTIONAL: Option<&str> = Some("transactional-update pkg install conntrack-tools");

const KNOWN: [Known; 22] = [
    known("Debian 13", "VERSION_ID=\"13\"\nID=debian\n", APT),
    known("Ubuntu 24.04", "VERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n", APT),
    known("Mint 22", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", APT),
    known("RHEL 10", "ID=\"rhel\"\nID_LIKE=\"centos fedora\"\nVERSION_ID=\"10.0\"\n", DNF),
    known("Rocky 9", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.3\"\n", DNF),
    known("Alma 9", "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\n", DNF),
    known("CentOS Stream 9", "ID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"9\"\n", DNF),
    known("Oracle 9", "ID=\"ol\"\nID_LIKE=\"fedora\"\nVARIANT_ID=\"server\"\n", DNF),
    known("Amazon 2023", "ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n", DNF),
    known("Fedora Server", "ID=fedora\nVERSION_ID=43\nVARIANT_ID=server\n", DNF),
    known("SLES 15", "VERSION_ID=\"15.7\"\nID=\"sles\"\nID_LIKE=\"suse\"\n", ZYPPER),
    known("Leap 16", "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", ZYPPER),
    known("Tumbleweed", "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", ZYPPER),
    known("Arch", "ID=arch\n", Some("pacman -S conntrack-tools")),
    known("Manjaro", "ID=manjaro\nID_LIKE=arch\n", Some("pacman -S conntrack-tools")),
    image("Fedora CoreOS", "ID=fedora\nVERSION_ID=43\nVARIANT_ID=coreos\n", OSTREE),
    image("RHEL CoreOS", "ID=\"rhcos\"\nID_LIKE=\"rhel fedora\"\nVARIANT_ID=coreos\n", OSTREE),
    image(
        "MicroOS",
        "ID=\"opensuse-microos\"\nID_LIKE=\"suse opensuse opensuse-tumbleweed\"\n",
        TRANSACTIONAL,
    ),
    image("SLE Micro 5.1", "VERSION_ID=\"5.1\"\nID=\"suse-microos\"\nID_LIKE=\"suse\"\n", TRANSACTIONAL),
    image("SLE Micro 5.5", "VERSION_ID=\"5.5\"\nID=\"sle-micro\"\nID_LIKE=\"suse\"\n", TRANSACTIONAL),
    image("Flatcar", "ID=flatcar\nID_LIKE=coreos\nVERSION_ID=4459.0.0\n", None),
    known("nobody's", "ID=homemade\n", None),
];

const fn known(name: &'static str, release: &'static str, install: Option<&'static str>) -> Known {
    Known { name, release, install, image: false }
}

const fn image(name: &'static str, release: &'static str, install: Option<&'static str>) -> Known {
    Known { name, release, install, image: true }
}
