//! The certificates and kubeconfigs of the harness's own cluster: one authority, made anew at each boot.

use super::layout::{self, API_SERVICE, HOST, Node};
use crate::failure::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Writes all certificates, keys and kubeconfigs.
pub(super) fn write() -> Result {
    let folder = layout::pki();
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let authority = authority(&folder)?;

    let names = [
        HOST,
        API_SERVICE,
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    authority.sign(&folder, "apiserver", "kube-apiserver", None, &names)?;
    authority.sign(
        &folder,
        "apiserver-kubelet",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
        &[],
    )?;

    let service_accounts = KeyPair::generate()?;
    fs::write(folder.join("service-accounts.key"), service_accounts.serialize_pem())?;
    fs::write(folder.join("service-accounts.pub"), service_accounts.public_key_pem())?;

    let mut users = vec![
        ("admin".to_owned(), "larder-e2e-admin".to_owned(), Some("system:masters")),
        ("controller-manager".to_owned(), "system:kube-controller-manager".to_owned(), None),
        ("scheduler".to_owned(), "system:kube-scheduler".to_owned(), None),
        ("proxy".to_owned(), "system:kube-proxy".to_owned(), None),
    ];
    for node in Node::all() {
        users.push((node.name(), format!("system:node:{}", node.name()), Some("system:nodes")));
    }
    for (file, user, group) in users {
        let (certificate, key) = authority.sign(&folder, &file, &user, group, &[])?;
        let path = folder.join(format!("{file}.kubeconfig"));
        fs::write(&path, kubeconfig(&authority.certificate, &certificate, &key)?)?;
    }
    fs::copy(folder.join("admin.kubeconfig"), layout::kubeconfig())?;
    fs::set_permissions(layout::kubeconfig(), fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn authority(folder: &Path) -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name("larder-e2e", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    fs::write(folder.join("ca.crt"), &certificate)?;
    fs::write(folder.join("ca.key"), key.serialize_pem())?;
    Ok(Authority { certificate, issuer: Issuer::new(params, key) })
}

impl Authority {
    fn sign(
        &self,
        folder: &Path,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[&str],
    ) -> Result<(String, String)> {
        let mut params = CertificateParams::new(
            names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        )?;
        params.distinguished_name = name(user, group);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        fs::write(folder.join(format!("{file}.crt")), &certificate)?;
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem())?;
        Ok((certificate, key.serialize_pem()))
    }
}

fn name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}

fn kubeconfig(authority: &str, certificate: &str, key: &str) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "larder-e2e", "cluster": {
            "server": layout::api_url(), "certificate-authority-data": base64(authority.as_bytes()),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": base64(certificate.as_bytes()), "client-key-data": base64(key.as_bytes()),
        }}],
        "contexts": [{"name": "larder-e2e", "context": {"cluster": "larder-e2e", "user": "user"}}],
        "current-context": "larder-e2e",
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * place) & 63).unwrap_or(0);
            out.push(if place <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(super::base64(text.as_bytes()), coded);
        }
    }
}
