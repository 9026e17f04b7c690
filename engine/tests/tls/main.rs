//! TLS of the clients' ports: who comes in, with which certificates, and what others notice of those who do not.

mod client;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod hostile;
mod reload;
mod served;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use client::{Certified, TlsClient};
use ports::free_port;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use support::{Client, Server, Value};

/// A CA, and a folder for what it signs.
pub(crate) struct Authority {
    pub(crate) dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), cert.pem()).unwrap();
        Authority { dir, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate of that common name; it and its key are files of that name.
    pub(crate) fn issue(&self, file: &str, common_name: &str) -> Certified {
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name = named(common_name);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        // As kubelet does it: what reads at the same time sees the old file or the new one.
        for (end, text) in [("key", key.serialize_pem()), ("crt", cert.pem())] {
            let path = self.dir.path().join(format!("{file}.{end}"));
            std::fs::write(path.with_extension("new"), text).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        }
        Certified { cert: cert.der().clone(), key: key.serialize_der() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// A server that serves both ways, and who signs for it.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) authority: Authority,
    pub(crate) port: u16,
}

impl Served {
    pub(crate) fn new(extra: &[&str]) -> Served {
        let authority = Authority::new();
        authority.issue("server", "server");
        Served::by(authority, extra)
    }

    pub(crate) fn by(authority: Authority, extra: &[&str]) -> Served {
        let port = free_port();
        let args = tls_args(&authority, port);
        let args: Vec<&str> =
            args.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        let server = Server::larder(&args);
        Served { server, authority, port }
    }

    pub(crate) fn plain(&self) -> Client {
        self.server.connect()
    }

    pub(crate) fn try_connect(&self, who: Option<&Certified>) -> Result<TlsClient, String> {
        let ca = std::fs::read(self.authority.path("ca.crt")).unwrap();
        TlsClient::connect(self.port, &ca, who)
    }

    /// A client without a certificate, where none is asked for.
    pub(crate) fn connect(&self) -> TlsClient {
        self.try_connect(None).unwrap()
    }

    pub(crate) fn info(&self, field: &str) -> String {
        info_of(&mut self.plain(), field)
    }
}

pub(crate) fn tls_args(authority: &Authority, port: u16) -> Vec<String> {
    let path = |name| authority.path(name);
    [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("server.crt")),
        ("--tls-key-file", path("server.key")),
        ("--tls-ca-cert-file", path("ca.crt")),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_string(), value])
    .collect()
}

pub(crate) fn info_of(client: &mut Client, field: &str) -> String {
    let text = client.words("INFO everything");
    let text = match &text {
        Value::Verbatim(text) => text.clone(),
        other => other.bytes().to_vec(),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.map_or_else(String::new, |value| value.trim().to_string())
}

/// Until that is so, for as long as a loaded machine may take.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not come about: {what}");
}

/// What a program says, with what it reads; `None`, and why, where it is not installed.
pub(crate) fn run(program: &str, args: &[&str], input: &[u8]) -> Option<String> {
    use std::io::Write as _;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found: Option<PathBuf> =
        std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|path| path.is_file());
    let Some(found) = found else {
        println!("skipped: there is no {program}");
        return None;
    };
    let mut child = Command::new(found)
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever does not read to the end has ended.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
