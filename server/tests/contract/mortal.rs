//! A replica that is killed between two writes: its way to the API server ends
//! after so many of them, with the last one's answer or without.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::sync::Notify;
use tower::{Layer, Service};

/// How long a replica lives.
#[derive(Clone)]
pub(crate) struct Life {
    left: Arc<AtomicUsize>,
    /// Whether it hears the answer to its last write.
    hears: bool,
    pub(crate) over: Arc<Notify>,
}

impl Life {
    pub(crate) fn of(writes: usize, hears: bool) -> Self {
        Self { left: Arc::new(AtomicUsize::new(writes)), hears, over: Arc::default() }
    }

    /// A client that dies.
    pub(crate) async fn client(&self, kubeconfig: &Path) -> Client {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("it was just written");
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.expect("it is whole");
        config.default_retry = false;
        ClientBuilder::try_from(config).expect("a TLS library").with_layer(self).build()
    }
}

impl<S> Layer<S> for Life {
    type Service = Mortal<S>;

    fn layer(&self, inner: S) -> Mortal<S> {
        Mortal { inner, life: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct Mortal<S> {
    inner: S,
    life: Life,
}

impl<S, B: 'static> Service<Request<Body>> for Mortal<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Response: Send,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let life = self.life.clone();
        if request.method() == Method::GET {
            return Box::pin(self.inner.call(request));
        }
        let lives = |left: usize| left.checked_sub(1);
        let Ok(left) = life.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lives) else {
            life.over.notify_one();
            return Box::pin(std::future::pending());
        };
        let call = self.inner.call(request);
        Box::pin(async move {
            let answer = call.await;
            if left == 1 && !life.hears {
                life.over.notify_one();
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}
