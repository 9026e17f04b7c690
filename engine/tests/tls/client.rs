//! A client that speaks RESP by TLS, and shows what its bytes are made of.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::{Value, encode};

/// A certificate and its key.
pub(crate) struct Certified {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: Vec<u8>,
}

pub(crate) struct TlsClient {
    pub(crate) tls: ClientConnection,
    pub(crate) socket: TcpStream,
    input: Vec<u8>,
}

/// No reply of a test takes longer, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn config(ca: &[u8], who: Option<&Certified>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(ca) {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match who {
        None => builder.with_no_client_auth(),
        Some(Certified { cert, key }) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
            builder.with_client_auth_cert(vec![cert.clone()], key).unwrap()
        }
    })
}

impl TlsClient {
    /// Connected, once the server has answered a PING: with TLS 1.3 a client's own handshake ends before the server has
    /// looked at its certificate.
    pub(crate) fn connect(
        port: u16,
        ca: &[u8],
        who: Option<&Certified>,
    ) -> Result<TlsClient, String> {
        let mut client = TlsClient::open(port, config(ca, who))?;
        client.send(&["PING"])?;
        client.reply()?;
        Ok(client)
    }

    pub(crate) fn open(port: u16, config: Arc<ClientConfig>) -> Result<TlsClient, String> {
        let socket = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config, name).unwrap();
        Ok(TlsClient { tls, socket, input: Vec::new() })
    }

    fn stream(&mut self) -> rustls::Stream<'_, ClientConnection, TcpStream> {
        rustls::Stream::new(&mut self.tls, &mut self.socket)
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut stream = self.stream();
        stream.write_all(bytes).and_then(|()| stream.flush()).map_err(|e| e.to_string())
    }

    pub(crate) fn send(&mut self, args: &[&str]) -> Result<(), String> {
        self.send_raw(&encode(args))
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        self.stream().read(buffer).map_err(|e| e.to_string())
    }

    pub(crate) fn reply(&mut self) -> Result<Value, String> {
        loop {
            if let Some((value, used)) = Value::parse(&self.input)? {
                self.input.drain(..used);
                return Ok(value);
            }
            let mut buffer = [0; 64 * 1024];
            match self.read(&mut buffer)? {
                0 => return Err("connection closed".into()),
                n => self.input.extend_from_slice(&buffer[..n]),
            }
        }
    }

    pub(crate) fn command(&mut self, args: &[&str]) -> Value {
        self.send(args).unwrap();
        self.reply().unwrap()
    }

    /// A command written as words without spaces in them; its reply as text.
    pub(crate) fn words(&mut self, words: &str) -> String {
        let value = self.command(&words.split_whitespace().collect::<Vec<_>>());
        text(&value)
    }
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Error(e) => format!("-{}", String::from_utf8_lossy(e)),
        Value::Int(n) => n.to_string(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Null | Value::NilBulk | Value::NilArray => "(nil)".into(),
        Value::Verbatim(text) => String::from_utf8_lossy(text).into_owned(),
        other => String::from_utf8_lossy(other.bytes()).into_owned(),
    }
}
