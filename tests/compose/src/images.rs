//! The images, each of one program and what it needs, made without a registry.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::Program;

use crate::docker::Docker;
use crate::programs::{Programs, copy_folder};
use crate::{command, workspace};

/// An image of docker-compose.yml that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// berth-server.
    Server,
    /// berth-lab, the agent, a hollow kubelet, kubectl and the manifests.
    Lab,
    /// The store.
    Etcd,
    /// What everybody talks to.
    ApiServer,
    /// Signs requests, watches nodes.
    ControllerManager,
    /// The balancer.
    Haproxy,
    /// Traces.
    Jaeger,
    /// Metrics.
    Prometheus,
}

impl Image {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::Lab,
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Haproxy,
        Self::Jaeger,
        Self::Prometheus,
    ];

    /// Its name, as deploy/offline.env has it. None is that of a foreign image.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "localhost/berth-server:dev",
            Self::Lab => "localhost/berth-lab:dev",
            Self::Etcd => "localhost/berth-lab-etcd:dev",
            Self::ApiServer => "localhost/berth-lab-kube-apiserver:dev",
            Self::ControllerManager => "localhost/berth-lab-kube-controller-manager:dev",
            Self::Haproxy => "localhost/berth-lab-haproxy:dev",
            Self::Jaeger => "localhost/berth-lab-jaeger:dev",
            Self::Prometheus => "localhost/berth-lab-prometheus:dev",
        }
    }

    /// Lays out its files, at the paths that docker-compose.yml and the foreign image
    /// of the same program know.
    fn fill(self, programs: &Programs, into: &Folder) -> Result<()> {
        let kubernetes = |program: Program| -> Result<()> {
            into.put(&programs.kubernetes(program)?, &format!("usr/local/bin/{}", program.name()))
        };
        match self {
            Self::Server => {
                into.put(&programs.own("berth-server"), "usr/local/bin/berth-server")?;
                into.own("var/lib/berth-server")
            }
            Self::Lab => {
                for name in ["berth-lab", "berth-agent"] {
                    into.put(&programs.own(name), &format!("usr/local/bin/{name}"))?;
                }
                kubernetes(Program::Kubectl)?;
                kubernetes(Program::Kubemark)?;
                // The kubelet asks for the mapping of a user that is not there, and needs the file for it.
                into.put(&workspace().join("deploy/compose/passwd"), "etc/passwd")?;
                // The overlay finds its base by a relative path.
                for folder in ["kubernetes", "compose/kubernetes"] {
                    let from = workspace().join("deploy").join(folder);
                    copy_folder(&from, &into.root.join("usr/share/berth").join(folder))?;
                }
                let owned = ["control", "server", "machines"].map(|name| format!("var/lib/lab/{name}"));
                owned
                    .iter()
                    .map(String::as_str)
                    .chain(["var/lib/etcd", "machine"])
                    .try_for_each(|path| into.own(path))
            }
            Self::Etcd => kubernetes(Program::Etcd),
            Self::ApiServer => kubernetes(Program::ApiServer),
            Self::ControllerManager => kubernetes(Program::ControllerManager),
            Self::Haproxy => into.put_with_libraries(&programs.haproxy(), "usr/local/sbin/haproxy"),
            Self::Jaeger => {
                into.put(&programs.jaeger(), "cmd/jaeger/jaeger-linux")?;
                copy_folder(&programs.jaeger_page(), &into.root.join("usr/share/jaeger-ui"))
            }
            Self::Prometheus => into.put_with_libraries(&programs.prometheus(), "bin/prometheus"),
        }
    }
}

/// Makes all images at a daemon; `say` gets a line about each.
///
/// # Errors
/// A program is missing, or the daemon refuses; with all that it said.
pub fn make_images(docker: &Docker, programs: &Programs, say: &mut dyn FnMut(&str)) -> Result<()> {
    for image in Image::ALL {
        let folder = tempfile::Builder::new().prefix("berth-image-").tempdir_in(scratch()?);
        let folder = folder.context("making a folder for an image's files")?;
        let files = Folder { root: folder.path().join("root"), own: folder.path().join("own") };
        for part in [&files.root, &files.own] {
            fs::create_dir_all(part).with_context(|| format!("making {}", part.display()))?;
        }
        image.fill(programs, &files).with_context(|| format!("gathering the files of {}", image.name()))?;
        fs::copy(workspace().join(DOCKERFILE), folder.path().join("Dockerfile"))
            .context("copying the Dockerfile")?;
        let mut build = docker.docker(&["build", "--quiet", "--force-rm", "--tag", image.name()]);
        build.arg(folder.path());
        Docker::said(build)?;
        say(image.name());
    }
    Ok(())
}

/// On the same disk as the programs, so that they are linked and not copied.
fn scratch() -> Result<PathBuf> {
    let folder = workspace().join("target/compose");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// What an image is made of.
struct Folder {
    /// Root's files.
    root: PathBuf,
    /// The folders that belong to the image's user.
    own: PathBuf,
}

impl Folder {
    fn put(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.root.join(to.trim_start_matches('/'));
        let folder = to.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        // Through links: an image has the file itself.
        let from = fs::canonicalize(from).with_context(|| format!("finding {}", from.display()))?;
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        }
        Ok(())
    }

    /// A program of the system, and the libraries that its loader finds for it.
    fn put_with_libraries(&self, program: &Path, to: &str) -> Result<()> {
        self.put(program, to)?;
        let listed = command("ldd").arg(program).output().context("starting ldd")?;
        if !listed.status.success() {
            bail!("ldd {}: {}", program.display(), String::from_utf8_lossy(&listed.stderr));
        }
        for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            self.put(Path::new(library), library)?;
        }
        Ok(())
    }

    fn own(&self, path: &str) -> Result<()> {
        let folder = self.own.join(path);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))
    }
}

/// The paths in what ldd(1) prints: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)`.
fn libraries(listed: &str) -> Vec<&str> {
    let path = |line: &'_ str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::len);
    listed
        .lines()
        .filter_map(|line| {
            let length = path(line)?;
            let start = line.find('/')?;
            line.get(start..start.checked_add(length)?)
        })
        .collect()
}

const DOCKERFILE: &str = "deploy/compose/local.Dockerfile";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(listed), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn the_environment_file_names_exactly_these_images() {
        let file = fs::read_to_string(workspace().join("deploy/offline.env")).expect("a file");
        let mut named: Vec<&str> =
            file.lines().filter_map(|line| line.split_once("_IMAGE=")).map(|(_, image)| image).collect();
        let mut made = Image::ALL.map(Image::name);
        named.sort_unstable();
        made.sort_unstable();
        assert_eq!(named, made);
    }
}
