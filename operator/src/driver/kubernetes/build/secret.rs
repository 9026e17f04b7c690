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

    /// DNS names in the members' certificate.
    pub fn member_names(&self) -> Vec<String> {
        let namespace = self.namespace();
        let members = self.members_service();
        vec![
            format!("*.{members}.{namespace}.svc"),
            self.dns(&format!("*.{members}")),
            format!("{}.{namespace}.svc", self.name()),
            self.dns(self.name()),
        ]
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
