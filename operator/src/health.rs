//! A small HTTP server for `/metrics`, `/healthz` and `/readyz`.
//!
//! Plain HTTP/1.1 on a port of its own; it serves text and takes nothing in, so that the kubelet and
//! Prometheus need no certificate.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::metrics::Metrics;

/// A client that has not sent its request after so long is cut off.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// As much of an answer as is read.
const PROBE_BYTES_MAX: u64 = 4096;

/// What the endpoints answer from.
#[derive(Debug, Default)]
pub struct Health {
    pub metrics: Metrics,
    ready: AtomicBool,
}

impl Health {
    /// Ready: the API server was reached, and this process leads or stands by.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn answer(&self, method: &Method, path: &str) -> (StatusCode, String) {
        if method != Method::GET && method != Method::HEAD {
            return (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match path {
            "/metrics" => (StatusCode::OK, self.metrics.text()),
            "/healthz" | "/livez" => (StatusCode::OK, "ok\n".into()),
            "/readyz" if self.ready.load(Ordering::Relaxed) => (StatusCode::OK, "ok\n".into()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".into()),
            _ => (StatusCode::NOT_FOUND, "not found\n".into()),
        }
    }
}

/// Binds the port; `serve` answers on it.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the task is dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, say: the next accept may succeed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = health.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, body) = health.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response(status, body)) }
            });
            // A peer that goes away in the middle is its own business.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_LIMIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Asks one of these endpoints, as `helm test` does from an image that has no shell.
///
/// # Errors
/// What the network said, or the answer when it is not 200.
pub async fn probe(url: &str) -> io::Result<()> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong(format!("{url} is no http URL")))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let asked = async {
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(PROBE_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(HEADER_LIMIT, asked)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {host}")))??;
    let line = answer.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("{url} answers: {line}"))),
    }
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn endpoints_answer_over_http() {
        let health = Arc::new(Health::default());
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, health.clone()));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        assert!(probe(&format!("http://{address}/healthz")).await.is_ok());
        let refused = probe(&format!("http://{address}/readyz")).await.unwrap_err();
        assert!(refused.to_string().contains("503"), "{refused}");
        health.set_ready(true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("larder_operator_leader 0"));
        assert!(get(address, "/secret").await.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn only_reading_is_allowed() {
        let (status, _) = Health::default().answer(&Method::POST, "/metrics");
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
