//! Who asks: what the kernel says of the process at the other end of the socket.

use berth_domain::diagnosis::printable;
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

/// The user's name, for the record.
pub(super) fn operator<T>(request: &Request<T>) -> String {
    let credentials = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred.as_ref());
    let Some(uid) = credentials.map(tokio::net::unix::UCred::uid) else {
        return "unknown".to_owned();
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name(&users, uid)
}

/// A user's name in passwd(5), or the number where it has none there.
fn name(users: &str, uid: u32) -> String {
    let of = |line: &str| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| printable(name))
    };
    users.lines().find_map(of).unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_by_name_or_else_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\n# a comment\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name(users, 1000), "alice");
        assert_eq!(name(users, 0), "root");
        assert_eq!(name(users, 42), "uid 42");
    }
}
