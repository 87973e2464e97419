//! The bounds of wire fields, checked where a field becomes a word.

use berth_domain::conversation::OutOfOrder;

/// A field of a message breaks its bounds.
#[derive(Debug, thiserror::Error)]
#[error("{message}.{field} {problem}")]
pub struct Malformed {
    /// The message's name.
    pub message: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It must be there.
    #[error("is missing")]
    Missing,
    /// It is larger than its bound.
    #[error("has {found} bytes or items, at most {most} are allowed")]
    TooLarge {
        /// What was found.
        found: usize,
        /// What is allowed.
        most: usize,
    },
    /// It has one legal length, and another was found.
    #[error("has {found} bytes and must have {wanted}")]
    Length {
        /// What was found.
        found: usize,
        /// What is legal.
        wanted: usize,
    },
    /// It would not stand on a terminal as it was sent (SECURITY R24).
    #[error("has control characters")]
    ControlCharacters,
    /// It does not parse.
    #[error("is not valid")]
    Invalid(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Malformed> for OutOfOrder {
    fn from(malformed: Malformed) -> Self {
        let source = std::error::Error::source(&malformed.problem).map(|cause| format!(": {cause}"));
        Self {
            expected: malformed.message,
            found: format!("{malformed}{}", source.unwrap_or_default()).into(),
        }
    }
}

/// One field of one message, to say which bound was broken.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) &'static str, pub(crate) &'static str);

impl Field {
    pub(crate) const fn malformed(self, problem: Problem) -> Malformed {
        Malformed { message: self.0, field: self.1, problem }
    }

    /// Parses text by the type's own rule.
    pub(crate) fn parse<T>(self, text: &str) -> Result<T, Malformed>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        text.parse().map_err(|cause| self.invalid(cause))
    }

    pub(crate) fn invalid(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Malformed {
        self.malformed(Problem::Invalid(cause.into()))
    }

    /// Text that may be shown as it is.
    pub(crate) fn text(self, text: String, most: usize) -> Result<String, Malformed> {
        self.count(text.len(), most)?;
        if text.chars().any(char::is_control) {
            return Err(self.malformed(Problem::ControlCharacters));
        }
        Ok(text)
    }

    /// Bytes that must be UTF-8 text.
    pub(crate) fn utf8(self, bytes: Vec<u8>, most: usize) -> Result<String, Malformed> {
        self.count(bytes.len(), most)?;
        String::from_utf8(bytes).map_err(|cause| self.invalid(cause))
    }

    pub(crate) fn bytes(self, bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, Malformed> {
        self.count(bytes.len(), most)?;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], Malformed> {
        bytes.try_into().map_err(|_| self.malformed(Problem::Length { found: bytes.len(), wanted: N }))
    }

    pub(crate) fn there<T>(self, value: Option<T>) -> Result<T, Malformed> {
        value.ok_or_else(|| self.malformed(Problem::Missing))
    }

    pub(crate) const fn count(self, found: usize, most: usize) -> Result<(), Malformed> {
        if found > most {
            return Err(self.malformed(Problem::TooLarge { found, most }));
        }
        Ok(())
    }
}
