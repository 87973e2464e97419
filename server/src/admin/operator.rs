//! Who asks: what the door says through which a request came in, and nothing that
//! the request itself could say.

use berth_domain::diagnosis::printable;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// An operator, as a door knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator(String);

impl Operator {
    /// An operator of this name, for the record. Doors other than the socket put
    /// their own name in front, so that nobody passes for a user of the system.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(printable(name))
    }

    /// The name in the record.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What this operator asks.
    #[must_use]
    pub fn asks<T>(&self, what: T) -> Request<T> {
        let mut request = Request::new(what);
        request.extensions_mut().insert(self.clone());
        request
    }
}

/// The asking operator's name, for the record.
pub(super) fn operator<T>(request: &Request<T>) -> Result<String, Status> {
    let known = request.extensions().get::<Operator>();
    known.map(|operator| operator.0.clone()).ok_or_else(|| Status::unauthenticated("nobody said who asks"))
}

/// The socket's door: what the kernel says of the process at the other end.
pub(super) fn from_socket(mut request: Request<()>) -> Result<Request<()>, Status> {
    let credentials = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred.as_ref());
    let operator = match credentials.map(tokio::net::unix::UCred::uid) {
        Some(uid) => {
            let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            name(&users, uid)
        }
        None => "unknown".to_owned(),
    };
    request.extensions_mut().insert(Operator(operator));
    Ok(request)
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
