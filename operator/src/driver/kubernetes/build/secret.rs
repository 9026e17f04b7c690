//! The Secrets: password, the members' certificate, the operator's certificate with the CA's key.
//!
//! What cannot be made again from the manifest stands in two of them, so that any one that is lost
//! comes back as it was: the password in `NAME-auth` and `NAME-operator-tls`, the CA's key there and in
//! `NAME-tls`, from which pods mount everything but that key.

use k8s_openapi::ByteString;
use serde_json::json;

use super::{Build, Kind, Object};
use crate::pki::Pair;

/// Secret with the password that the operator makes, and the engine's `auth.conf`.
pub fn generated_auth_name(cluster: &str) -> String {
    format!("{cluster}-auth")
}

/// Secret with the members' certificate.
pub fn tls_name(cluster: &str) -> String {
    format!("{cluster}-tls")
}

/// Secret with the operator's certificate, the CA's key and the password: no pod mounts it.
pub fn operator_tls_name(cluster: &str) -> String {
    format!("{cluster}-operator-tls")
}

/// Secret that clients read the password from, and its key; `None` when there is no password.
pub fn auth_name(cluster: &crds::CacheCluster) -> Option<(String, String)> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    match &cluster.spec.auth {
        Some(auth) if auth.disabled => None,
        Some(auth) => Some((
            auth.secret_name.clone().unwrap_or_else(|| generated_auth_name(name)),
            auth.secret_key.clone(),
        )),
        None => Some((generated_auth_name(name), "password".into())),
    }
}

/// What is secret about a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    pub ca: Pair,
    pub member: Pair,
    pub operator: Pair,
    /// `None`: auth is disabled.
    pub password: Option<String>,
}

impl Build<'_> {
    /// No password is wanted.
    pub fn auth_disabled(&self) -> bool {
        self.cluster.spec.auth.as_ref().is_some_and(|a| a.disabled)
    }

    /// The password stands in a Secret of the user's.
    pub fn given_auth(&self) -> Option<(&str, &str)> {
        let auth = self.cluster.spec.auth.as_ref().filter(|a| !a.disabled)?;
        Some((auth.secret_name.as_deref()?, &auth.secret_key))
    }

    /// The Secret of the user's with the certificate that clients see.
    pub fn given_tls(&self) -> Option<&str> {
        self.cluster.spec.tls.as_ref()?.secret_name.as_deref()
    }

    /// The certificate that clients see is the members' own.
    fn issues_tls(&self) -> bool {
        self.desired.serves_tls() && self.given_tls().is_none()
    }

    /// DNS names in the members' certificate.
    pub fn member_names(&self) -> Vec<String> {
        let namespace = self.namespace();
        let (name, members) = (self.name(), self.members_service());
        let mut names = vec![
            format!("*.{members}.{namespace}.svc"),
            self.dns(&format!("*.{members}")),
            format!("{name}.{namespace}.svc"),
            self.dns(name),
        ];
        if self.issues_tls() {
            // Clients verify the name that they dial, of whichever Service: NAME, NAME-read, NAME-N-primary. Who trusts
            // this CA trusts it for this one cluster.
            for service in [name.to_owned(), format!("{name}-read")] {
                names.push(format!("{service}.{namespace}"));
                names.push(service);
            }
            names.push(format!("*.{namespace}.svc"));
            names.push(self.dns("*"));
            names.push("localhost".into());
        }
        names
    }

    /// All Secrets of the cluster. The operator's comes first: what it holds makes the others again.
    pub fn secrets(&self, secrets: &Secrets) -> Vec<Object> {
        let mut operator = json!({
            "ca.crt": secrets.ca.cert,
            "ca.key": secrets.ca.key,
            "tls.crt": secrets.operator.cert,
            "tls.key": secrets.operator.key,
        });
        let mut objects = Vec::new();
        let name = self.name();
        if let Some(password) = &secrets.password {
            operator["password"] = json!(password);
            let quoted = quote(password);
            let mut data =
                json!({"auth.conf": format!("requirepass {quoted}\nmasterauth {quoted}\n")});
            if self.given_auth().is_none() {
                data["password"] = json!(password);
            }
            objects.push(self.secret(generated_auth_name(name), data));
        }
        objects.insert(0, self.secret(operator_tls_name(name), operator));
        let member = json!({
            "ca.crt": secrets.ca.cert,
            "ca.key": secrets.ca.key,
            "tls.crt": secrets.member.cert,
            "tls.key": secrets.member.key,
        });
        objects.push(self.secret(tls_name(name), member));
        if self.issues_tls() {
            let body = json!({"data": {"ca.crt": secrets.ca.cert}});
            objects.push(self.object(Kind::ConfigMap, format!("{name}-ca"), true, body));
        }
        objects
    }

    fn secret(&self, name: String, data: serde_json::Value) -> Object {
        let mut encoded = serde_json::Map::new();
        for (key, value) in data.as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            encoded.insert(key.clone(), json!(ByteString(text.as_bytes().to_vec())));
        }
        self.object(Kind::Secret, name, true, json!({"type": "Opaque", "data": encoded}))
    }
}

/// A word as a quoted argument of a configuration file.
fn quote(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
