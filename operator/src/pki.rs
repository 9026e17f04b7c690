//! The certificates of one cluster: its own CA, one certificate for all members, one for the operator.
//!
//! Identity on the bus is the CA and the common name (`member`, `operator`), never an address: IPs and
//! names of pods may change without a new certificate. Every certificate lives ten years; they are
//! replaced by making new Secrets, not by expiring.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// The name that every member's certificate carries, whatever address is dialled.
pub const SERVER_NAME: &str = engine::bus::tls::SERVER_NAME;
/// Common name of the operator's certificate.
pub const OPERATOR: &str = "operator";
/// Common name of the members' certificate.
pub const MEMBER: &str = "member";

/// Years that a certificate lives.
const YEARS: i32 = 10;
/// First day of every certificate: well in the past, so that no drifting clock refuses one.
const FIRST_YEAR: i32 = 2024;

/// A certificate and its key, both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// A cluster's CA: who is signed by it belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    pub pair: Pair,
}

/// A key or certificate that cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct Error {
    action: &'static str,
    source: rcgen::Error,
}

fn failed(action: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error { action, source }
}

impl Ca {
    /// Makes a new CA; `year` is the present one.
    pub fn new(year: i32) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(failed("generate the key of the CA"))?;
        let cert = ca_params(year).self_signed(&key).map_err(failed("sign the CA"))?;
        Ok(Self { pair: Pair { cert: cert.pem(), key: key.serialize_pem() } })
    }

    /// Takes up a CA from its PEM text.
    pub fn from_pem(cert: String, key: String) -> Result<Self, Error> {
        KeyPair::from_pem(&key).map_err(failed("read the key of the CA"))?;
        Ok(Self { pair: Pair { cert, key } })
    }

    /// The certificate that all members share; `names` are DNS names by which they are reached.
    pub fn member(&self, names: &[String], year: i32) -> Result<Pair, Error> {
        let mut all = vec![SERVER_NAME.to_owned()];
        all.extend_from_slice(names);
        self.sign(MEMBER, all, year)
    }

    /// The operator's certificate.
    pub fn operator(&self, year: i32) -> Result<Pair, Error> {
        self.sign(OPERATOR, vec!["operator.larder.internal".to_owned()], year)
    }

    fn sign(&self, common_name: &str, names: Vec<String>, year: i32) -> Result<Pair, Error> {
        let issuer_key =
            KeyPair::from_pem(&self.pair.key).map_err(failed("read the key of the CA"))?;
        let issuer = Issuer::new(ca_params(year), issuer_key);
        let mut params =
            CertificateParams::new(names).map_err(failed("name a member's certificate"))?;
        params.distinguished_name = named(common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        live(&mut params, year);
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let cert = params.signed_by(&key, &issuer).map_err(failed("sign a certificate"))?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// The same for every CA: only its key tells one cluster's from another's.
fn ca_params(year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("larder");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    live(&mut params, year);
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn live(params: &mut CertificateParams, year: i32) {
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(year.max(FIRST_YEAR) + YEARS, 12, 31);
}

/// A new password: 192 random bits in 32 letters and digits.
pub fn password() -> Result<String, Error> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0u8; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| Error { action: "make a password", source: rcgen::Error::RingUnspecified })?;
    Ok(random.iter().map(|b| char::from(LETTERS[usize::from(b & 63)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::bus::tls::Tls;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// Whether a client with one identity and a server with the other understand each other.
    async fn shake(client: &Tls, server: &Tls) -> bool {
        let (near, far) = duplex(1 << 16);
        let accept = server.acceptor().accept(far);
        let connect = client.connector().connect(Tls::server_name().unwrap(), near);
        let (accepted, connected) = tokio::join!(accept, connect);
        let (Ok(mut accepted), Ok(mut connected)) = (accepted, connected) else { return false };
        // In TLS 1.3 the client learns of a refused certificate with its first read only.
        let mut byte = [0];
        accepted.write_all(b"x").await.unwrap();
        accepted.flush().await.unwrap();
        connected.read_exact(&mut byte).await.is_ok()
    }

    fn tls(ca: &Ca, pair: &Pair) -> Tls {
        Tls::from_pem(ca.pair.cert.as_bytes(), pair.cert.as_bytes(), pair.key.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn members_and_operator_of_one_cluster_trust_each_other_and_no_other() {
        let ca = Ca::new(2026).unwrap();
        let member = ca.member(&["*.demo-members.default.svc".into()], 2026).unwrap();
        let operator = ca.operator(2026).unwrap();
        assert!(shake(&tls(&ca, &member), &tls(&ca, &member)).await);
        assert!(shake(&tls(&ca, &operator), &tls(&ca, &member)).await);

        let other = Ca::new(2026).unwrap();
        let stranger = other.operator(2026).unwrap();
        assert!(!shake(&tls(&other, &stranger), &tls(&ca, &member)).await);
    }

    #[tokio::test]
    async fn certificate_signed_after_a_reload_of_the_ca_is_trusted() {
        let ca = Ca::new(2026).unwrap();
        let member = ca.member(&[], 2026).unwrap();
        let again = Ca::from_pem(ca.pair.cert.clone(), ca.pair.key.clone()).unwrap();
        let operator = again.operator(2031).unwrap();
        assert!(shake(&tls(&again, &operator), &tls(&ca, &member)).await);
    }

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, two) = (password().unwrap(), password().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }
}
