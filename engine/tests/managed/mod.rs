//! A certificate authority like a cluster's own.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};

use engine::bus::tls::SERVER_NAME;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A cluster's CA, which signs by role.
pub(crate) struct Ca(Issuer<'static, KeyPair>, String);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    pub(crate) fn write(&self, dir: &Path, role: &str) -> PathBuf {
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, role);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let dir = dir.join(role);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("ca.crt"), &self.1).unwrap();
        std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        dir
    }
}
