//! Small, bounded reads of files that may be absent, odd or endless.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use berth_domain::facts::bounds;
use rustix::fs::OFlags;

/// The most bytes of a table such as `/proc/net/tcp` or `modules.dep`.
const LONGEST_FILE: u64 = 4 << 20;

/// The most bytes of one line of a table; the rest of the line is left out.
const LONGEST_LINE: u64 = 64 << 10;

/// Room for a file such as most are, in bytes.
const USUAL_FILE: usize = 4096;

/// The most entries that are read from one directory.
const MOST_ENTRIES: usize = 4096;

/// Shows each line of a table until `see` breaks. Only one line is in memory at a
/// time: a table may have megabytes, and an attending agent reads it every few
/// seconds. `None` where there is no such file.
pub(in crate::host) fn lines(path: &Path, mut see: impl FnMut(&str) -> ControlFlow<()>) -> Option<()> {
    let mut table = BufReader::new(open(path)?.take(LONGEST_FILE));
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = table.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
        let ended = line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if length == 0 || see(&String::from_utf8_lossy(text)).is_break() {
            return Some(());
        }
        if !ended {
            table.skip_until(b'\n').ok()?;
        }
    }
}

/// What `find` makes of the first line that it makes anything of.
pub(in crate::host) fn find<T>(path: &Path, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
    let mut found = None;
    lines(path, |line| {
        found = find(line);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    found
}

/// The first `most` bytes of a file as text.
pub(super) fn start(path: &Path, most: u64) -> Option<String> {
    let bytes = bytes(path, most)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first `most` bytes of a file. Anything but a regular file is absent.
pub(super) fn bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    // Nearly all are short and read at once: the kernel tells no size of them.
    let mut bytes = Vec::with_capacity(usize::try_from(most).map_or(USUAL_FILE, |most| most.min(USUAL_FILE)));
    open(path)?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A regular file. Looked at once it is open, which spares a second way to it; until then
/// nothing is waited for, such as the other end of a pipe.
fn open(path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// A file that holds one fact; `None` when it is empty.
pub(super) fn text(path: &Path) -> Option<String> {
    let text = bounds::text(&start(path, 4096)?);
    (!text.is_empty()).then_some(text)
}

/// A file that holds one number.
pub(super) fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// The names in a directory, sorted; nothing when there is no such directory.
pub(super) fn names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(MOST_ENTRIES)
        .collect();
    names.sort_unstable();
    names
}

/// The last part of what a symbolic link points to: how sysfs names a driver.
pub(super) fn target_name(link: &Path) -> Option<String> {
    let name = bounds::text(fs::read_link(link).ok()?.file_name()?.to_str()?);
    (!name.is_empty()).then_some(name)
}

/// What stands behind `key` at the start of a line: `field(text, "MemTotal:")`.
pub(super) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim_start().strip_prefix(key)).map(str::trim)
}

/// An amount as `/proc/meminfo` writes it, `16393244 kB`, in bytes.
pub(super) fn kibibytes(amount: &str) -> Option<u64> {
    amount.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The number behind a prefix in a file's name: `node3` is 3.
pub(super) fn numbered(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// An absolute path as seen below a root.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
