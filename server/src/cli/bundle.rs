//! `berth-server bundle`: makes bundles of node software, and looks at them. No server
//! need run: what is needed is its configuration, and its data directory.

mod shown;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use berth_domain::bundle::{Bundle, Manifest, Place, Signed};
use clap::{Args, Subcommand};

use self::shown::{Standing, text, value};
use super::client::now;
use super::output::{Failure, Format, Output};
use crate::app::{Settings, own_authority, trusted};
use crate::bundle::archive::Archive;
use crate::bundle::create::{Asked, create};
use crate::signer::bundle::BundleKey;
use crate::signer::local::LocalSigner;

/// Make bundles of node software, and look at them
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put programs, CNI plugins, units and images into one signed archive; nothing is
    /// fetched
    Create(Box<Create>),
    /// Print what is in a bundle, without believing it
    Inspect {
        /// The bundle: an archive, or a directory with its files
        file: PathBuf,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Check a bundle's signature and every byte of it, and print what is in it
    Verify {
        /// The bundle: an archive, or a directory with its files
        file: PathBuf,
        /// The CA that must vouch for it, PEM [default: the CA of the serving certificate]
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
}

/// What goes into a bundle, and who signs it.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Where to write it
    file: PathBuf,
    /// A directory; its files are known by their names and bytes; may be repeated
    #[arg(long, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// A program, such as kubelet, containerd or runc; may be repeated
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,
    /// A CNI plugin; may be repeated
    #[arg(long, value_name = "FILE")]
    cni: Vec<PathBuf>,
    /// A unit of systemd; may be repeated
    #[arg(long, value_name = "FILE")]
    unit: Vec<PathBuf>,
    /// An image: an OCI layout, unpacked or as tar, or the tar of docker save; may be repeated
    #[arg(long, value_name = "PATH")]
    image: Vec<PathBuf>,
    /// The version of a file, for the manifest; may be repeated
    #[arg(long, value_name = "NAME=VERSION")]
    set_version: Vec<Named>,
    /// The licence of a file, SPDX, for the manifest; may be repeated
    #[arg(long, value_name = "NAME=SPDX")]
    set_license: Vec<Named>,
    /// The CA of the serving certificate, where others keep it: endorses the bundle key
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_certificate: Option<PathBuf>,
    /// Its key; needed once
    #[arg(long, value_name = "FILE", requires = "ca_certificate")]
    ca_key: Option<PathBuf>,
    /// How to print what is in it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// `NAME=TEXT`.
#[derive(Clone, Debug)]
struct Named(String, String);

/// The text has no `=` between two words.
#[derive(Debug, thiserror::Error)]
#[error("write it as NAME=TEXT")]
struct NotNamed;

impl FromStr for Named {
    type Err = NotNamed;

    fn from_str(text: &str) -> Result<Self, NotNamed> {
        match text.split_once('=') {
            Some((name, text)) if !name.is_empty() && !text.is_empty() => {
                Ok(Self(name.to_owned(), text.to_owned()))
            }
            Some(_) | None => Err(NotNamed),
        }
    }
}

pub(super) async fn run(command: &Command, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Create(asked) => {
            let signed = made(asked, settings).await.map_err(Failure::chain)?;
            let manifest = Manifest::parse(&signed.manifest).map_err(Failure::other)?;
            print(output, asked.output, &signed, &manifest, Standing::Made)
        }
        Command::Inspect { file, output: format } => {
            let archive = Archive::open(file).map_err(Failure::other)?;
            let manifest = Manifest::parse(&archive.signed().manifest).map_err(Failure::other)?;
            print(output, *format, archive.signed(), &manifest, Standing::NotVerified)
        }
        Command::Verify { file, ca, output: format } => {
            let (archive, bundle) = verified(file, ca.as_deref(), settings).await.map_err(Failure::chain)?;
            print(output, *format, archive.signed(), bundle.manifest(), Standing::Verified)
        }
    }
}

async fn made(asked: &Create, settings: &Settings) -> anyhow::Result<Signed> {
    let ca = match (&asked.ca_certificate, &asked.ca_key) {
        (Some(certificate), Some(key)) => Some(LocalSigner::from_files(certificate, key, now())?),
        (None, _) | (_, None) => own_authority(settings, now()).await?,
    };
    let key = BundleKey::open_or_create(&settings.data_dir.join("pki"), ca.as_ref())?;
    let places = [
        (Place::Program, &asked.program),
        (Place::Cni, &asked.cni),
        (Place::Unit, &asked.unit),
        (Place::Image, &asked.image),
    ];
    let named = |given: &[Named]| -> BTreeMap<String, String> {
        given.iter().map(|Named(name, text)| (name.clone(), text.clone())).collect()
    };
    let what = Asked {
        directories: asked.from.clone(),
        files: places
            .into_iter()
            .flat_map(|(place, files)| files.iter().map(move |file| (place, file.clone())))
            .collect(),
        versions: named(&asked.set_version),
        licenses: named(&asked.set_license),
    };
    Ok(create(&what, &asked.file, |manifest| key.sign(manifest))?)
}

async fn verified(file: &Path, ca: Option<&Path>, settings: &Settings) -> anyhow::Result<(Archive, Bundle)> {
    let authorities = trusted(settings, ca, now()).await?;
    let archive = Archive::open(file)?;
    let bundle = Bundle::verified(archive.signed(), &authorities)
        .with_context(|| format!("the bundle {} is not this cluster's", file.display()))?;
    archive.verify(bundle.manifest())?;
    Ok((archive, bundle))
}

fn print(
    output: &mut Output,
    format: Format,
    signed: &Signed,
    manifest: &Manifest,
    standing: Standing,
) -> Result<(), Failure> {
    output.one(format, || Ok(value(signed, manifest, standing)), || text(signed, manifest, standing))
}
