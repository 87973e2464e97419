//! What the environment says of the terminal's characters.

/// Whether the locale's characters are UTF-8: `LC_ALL`, `LC_CTYPE`, `LANG`,
/// the first that is set (POSIX, Environment Variables).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the command line's parser is where the environment is read")]
pub fn locale_is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_uppercase();
    locale.contains("UTF-8") || locale.contains("UTF8")
}
