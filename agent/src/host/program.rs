//! Runs the few programs that do what no system call or service does: modprobe(8),
//! journalctl(1), ip(8). The one place that starts processes that change something.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::survey;

/// The most of a program's output that is kept, in bytes: the rules of a packet filter.
const LONGEST_OUTPUT: u64 = 1 << 20;

/// Between two looks whether a program has ended.
const STEP: Duration = Duration::from_millis(5);

/// Runs a program of the running system and returns what it prints. Blocks until
/// it ends, or is killed at the deadline.
///
/// # Errors
/// There is no such program, it took too long, or it failed: then its own words.
pub(super) fn run(name: &str, arguments: &[&str], deadline: Duration) -> io::Result<String> {
    feed(name, arguments, "", deadline)
}

/// The same, for a program that reads its orders.
///
/// # Errors
/// As [`run`].
pub(super) fn feed(name: &str, arguments: &[&str], orders: &str, deadline: Duration) -> io::Result<String> {
    let path = survey::program(Path::new("/"), name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no {name}")))?;
    #[expect(clippy::disallowed_methods, reason = "the one place of the agent that starts processes")]
    let mut child = std::process::Command::new(path)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Both pipes are read at once: a program may fill either.
    let (out, err) = (gathered(child.stdout.take()), gathered(child.stderr.take()));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read all says why by itself.
        let _ = stdin.write_all(orders.as_bytes());
    }
    let ended = wait(&mut child, deadline);
    let text = |reading: thread::JoinHandle<String>| reading.join().unwrap_or_default();
    let (out, err) = (text(out), text(err));
    if ended?.success() { Ok(out) } else { Err(io::Error::other(words(name, &err))) }
}

/// The program's last line, which says most.
fn words(name: &str, said: &str) -> String {
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    last.map_or_else(|| format!("{name} failed without a word"), |line| line.trim().to_owned())
}

fn gathered(pipe: Option<impl io::Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read until it failed is what there is.
            let _ = pipe.take(LONGEST_OUTPUT).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<std::process::ExitStatus> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {deadline:?}")));
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_and_its_failure_is_told_in_its_own_words() {
        assert_eq!(run("echo", &["one", "two"], Duration::from_secs(10)).expect("echo"), "one two\n");
        let failed = run("ls", &["/nothing/here"], Duration::from_secs(10)).expect_err("no such path");
        assert!(failed.to_string().contains("/nothing/here"), "{failed}");
        let absent = run("no-such-program-1", &[], Duration::from_secs(10)).expect_err("not there");
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let late = run("sleep", &["60"], Duration::from_millis(50)).expect_err("it hangs");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
