//! What is tried until it succeeds while a node comes up: the API server's address,
//! and the image that every pod begins with. Each is tried beside the join, which
//! never waits for it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::host::cri::Cri;
use crate::jitter;
use crate::plan::Expected;

/// How long a connection may take. The kernel's own patience is minutes.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a registry may take to bring the image, which has some 300 KiB.
const PULL: Duration = Duration::from_secs(8);

/// Between two attempts at either; each is jittered.
const PAUSE: Duration = Duration::from_secs(1);

/// How many looks for the image come between two attempts to fetch it: somebody may
/// import it at any moment, and a registry is not asked that often.
const LOOKS: u32 = 10;

/// What has not succeeded yet: its subject, and why not.
type Unmet = Option<(String, String)>;

/// The attempts of one join. Dropped, they end.
#[derive(Default)]
pub(super) struct Probes {
    stands: Arc<Stands>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Stands {
    api: Mutex<Unmet>,
    image: Mutex<Unmet>,
    changed: Notify,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.end();
    }
}

impl Probes {
    /// Begins anew with what is expected.
    pub(super) fn begin(&self, expected: &Expected) {
        self.end();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = expected.api.as_deref().and_then(address) {
            tasks.push(tokio::spawn(reach(Arc::clone(&self.stands), address)));
        }
        if let Some(image) = expected.pause_image.clone() {
            tasks.push(tokio::spawn(hold(Arc::clone(&self.stands), expected.socket.clone(), image)));
        }
    }

    /// The API server that is not reached.
    pub(super) fn api(&self) -> Unmet {
        self.stands.api.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The image that is not there.
    pub(super) fn image(&self) -> Unmet {
        self.stands.image.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends when an attempt has ended otherwise than the one before.
    pub(super) async fn changed(&self) {
        self.stands.changed.notified().await;
    }

    fn end(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.stands.set(&self.stands.api, None);
        self.stands.set(&self.stands.image, None);
    }
}

impl Stands {
    fn set(&self, which: &Mutex<Unmet>, stands: Unmet) {
        let mut which = which.lock().unwrap_or_else(PoisonError::into_inner);
        if *which != stands {
            *which = stands;
            self.changed.notify_one();
        }
    }
}

/// `host:port` of an `https://` URL.
fn address(url: &str) -> Option<String> {
    let authority = url.strip_prefix("https://")?.split('/').next()?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { authority.to_owned() } else { format!("{authority}:443") })
}

async fn reach(stands: Arc<Stands>, address: String) {
    loop {
        let error = match timeout(CONNECT, TcpStream::connect(&address)).await {
            Ok(Ok(_)) => return stands.set(&stands.api, None),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer after {} s", CONNECT.as_secs()),
        };
        stands.set(&stands.api, Some((address.clone(), error)));
        pause().await;
    }
}

async fn hold(stands: Arc<Stands>, socket: String, image: String) {
    let mut looks = 0;
    loop {
        // A runtime that cannot be asked is a cause of its own.
        if let Ok(mut runtime) = Cri::reach(Path::new(&socket)).await
            && let Ok(is_there) = runtime.has_image(&image).await
        {
            if is_there {
                return stands.set(&stands.image, None);
            }
            if looks % LOOKS == 0
                && let Err(status) = runtime.pull(&image, PULL).await
            {
                stands.set(&stands.image, Some((image.clone(), status.message().to_owned())));
            }
            looks += 1;
        }
        pause().await;
    }
}

async fn pause() {
    sleep(PAUSE + jitter::part(PAUSE / 4, jitter::random())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_from_a_url() {
        assert_eq!(address("https://10.0.0.1:6443").as_deref(), Some("10.0.0.1:6443"));
        assert_eq!(address("https://[fd00::1]:6443/x").as_deref(), Some("[fd00::1]:6443"));
        assert_eq!(address("https://api.example").as_deref(), Some("api.example:443"));
        assert_eq!(address("http://api.example"), None);
    }

    #[tokio::test]
    async fn an_api_server_is_told_while_it_is_out_of_reach_and_no_longer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        drop(listener);
        let probes = Probes::default();
        probes.begin(&Expected { api: Some(format!("https://{at}")), ..Expected::default() });
        probes.changed().await;
        let (address, error) = probes.api().expect("nobody listens");
        assert_eq!(address, at.to_string());
        assert!(error.contains("refused"), "{error}");
        let _listener = tokio::net::TcpListener::bind(at).await.expect("the port is free");
        probes.changed().await;
        assert_eq!(probes.api(), None);
    }
}
