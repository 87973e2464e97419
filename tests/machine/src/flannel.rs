//! flannel, an add-on that brings the network of pods: built from its Go module, which
//! `modules/go.mod` pins, and put into an image. Once, into the cache.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_kubernetes::{go_build, go_suffices, module_folder_in};

use crate::cache::Cache;
use crate::image::{self, Image};
use crate::wanted::not_run;

/// The image's archive, as `ctr images import` takes it; built if it is not there, in a
/// minute and a half of one core.
///
/// # Errors
/// Go is missing or too old, or flannel does not build.
pub fn flannel(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let cache = Cache::open(NAME, &recipe())?;
    cache.step(IMAGE, say, make)?;
    Ok(cache.folder().join(IMAGE).join(ARCHIVE))
}

/// The same for a test, which builds nothing that takes so long.
///
/// # Errors
/// It is not built where `CI` is true: there a test that did not run has failed.
pub fn flannel_for_tests() -> Result<Option<PathBuf>> {
    let archive = Cache::place(NAME, &recipe())?.join(IMAGE).join(ARCHIVE);
    if archive.exists() {
        return Ok(Some(archive));
    }
    not_run("flannel", &["its image; to mend: cargo xtask test --only machines".to_owned()]).map(|()| None)
}

/// The add-on, as it is applied to a cluster whose API server listens at this address:
/// there is no kube-proxy, which would bring pods to it by its service's address.
#[must_use]
pub fn flannel_manifest(api: std::net::SocketAddr) -> String {
    let address = api.ip().to_string();
    MANIFEST.replace("API_ADDRESS", &address).replace("API_PORT", &api.port().to_string())
}

fn make(folder: &Path) -> Result<()> {
    go_suffices()?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let work = tempfile::Builder::new().prefix("berth-flannel-").tempdir().context("making a folder")?;
    let (source, files) = (work.path().join("source"), work.path().join("files"));
    for folder in [&source, &files] {
        fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    for name in ["go.mod", "go.sum"] {
        fs::copy(Path::new(MODULES).join(name), source.join(name)).context("taking flannel's modules")?;
    }
    fs::write(source.join("main.go"), main()?).context("writing flannel's main package")?;
    go_build(&source, ".", "-s -w", &files.join("flanneld"))?;
    // flanneld calls nft and iptables: those of the machine, which its manifest mounts.
    for (at, to) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(to, files.join(at)).with_context(|| format!("linking {at}"))?;
    }
    let image = Image { name: IMAGE_NAME, entrypoint: &["/flanneld"], files: &files };
    image::write(&image, &folder.join(ARCHIVE))
}

/// flannel's own main package, less the backends that cannot be built here.
fn main() -> Result<String> {
    let path = module_folder_in(Path::new(MODULES), MODULE)?.join("main.go");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let is_left_out = |line: &&str| LEFT_OUT.iter().any(|backend| line.contains(backend));
    if text.lines().filter(is_left_out).count() != LEFT_OUT.len() {
        bail!("{} imports its backends otherwise than this build knows", path.display());
    }
    let mut kept = Vec::with_capacity(text.len());
    for line in text.lines().filter(|line| !is_left_out(line)) {
        writeln!(kept, "{line}").context("copying flannel's main package")?;
    }
    String::from_utf8(kept).context("copying flannel's main package")
}

fn recipe() -> String {
    [PINNED, IMAGE_NAME, &LEFT_OUT.join(" ")].join("\n")
}

const MODULE: &str = "github.com/flannel-io/flannel";
/// One calls C; the other is a cloud's, whose library the proxy of Go modules lacks.
const LEFT_OUT: [&str; 2] = ["flannel/pkg/backend/udp\"", "flannel/pkg/backend/tencentvpc\""];
const NAME: &str = "flannel";
const IMAGE: &str = "image";
const ARCHIVE: &str = "flannel.tar";
/// The project's own build, so not under upstream's name.
const IMAGE_NAME: &str = "localhost/berth/flannel:1";
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/modules");
const PINNED: &str = include_str!("../modules/go.mod");
const MANIFEST: &str = include_str!("flannel.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_the_image_and_the_api_server() {
        let text = flannel_manifest(([10, 77, 0, 1], 6443).into());
        assert!(text.contains(&format!("image: {IMAGE_NAME}")), "{text}");
        assert!(text.contains("value: \"10.77.0.1\"") && text.contains("value: \"6443\""), "{text}");
        assert!(!text.contains("API_"), "{text}");
    }
}
