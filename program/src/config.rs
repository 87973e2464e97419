//! Configuration files in the manner of Kubernetes, and where a setting came from:
//! flags over environment over file over defaults.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The largest configuration file that is read, in bytes.
pub const LARGEST_FILE: u64 = 256 * 1024;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// The configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("reading the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It is far larger than a configuration can be.
    #[error("the configuration {} is larger than {LARGEST_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It says something that is not understood.
    #[error("{}{place}: {field} is not understood; `{program} config print-defaults` shows every field", path.display())]
    NotUnderstood {
        /// The program that shows every field.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// `:LINE:COLUMN`, from 1; empty where there is none.
        place: String,
        /// The path of the field within the file, such as `pools[0].labels`.
        field: String,
        /// What is wrong there.
        #[source]
        cause: Box<serde_saphyr::Error>,
    },
}

/// Parses a file's text; `path` is for the error only.
///
/// # Errors
/// Names the place of the first thing that is not understood.
pub fn parse<T: DeserializeOwned>(program: &'static str, text: &str, path: &Path) -> Result<T, FileError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let mut field = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            field = error.path().to_string();
            error.into_inner()
        })
    });
    parsed.map_err(|cause| {
        let place = cause.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        let field = Some(field).filter(|field| field.len() > 1).unwrap_or_else(|| "the file".to_owned());
        FileError::NotUnderstood { program, path: path.to_owned(), place, field, cause: Box::new(cause) }
    })
}

/// Reads the file that was asked for, or the usual one. Where none was asked for,
/// a file that is not there is no error, and no configuration either.
///
/// # Errors
/// It cannot be read, or says something that is not understood.
pub fn read<T: DeserializeOwned>(
    program: &'static str,
    asked: Option<&Path>,
    usual: &Path,
) -> Result<Option<(PathBuf, T)>, FileError> {
    let path = asked.unwrap_or(usual);
    let failed = |cause| FileError::Read { path: path.to_owned(), cause };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && asked.is_none() => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(Some((path.to_owned(), parse(program, &text, path)?)))
}
