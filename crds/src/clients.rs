//! Who is served, and how: the part of the spec about passwords, TLS, and clients of other ports.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::QUANTITY_PATTERN;

/// The password of clients.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.secretName) && has(self.disabled) && self.disabled)")
        .message("auth: secretName and disabled: true contradict each other"),
    validation = Rule::new("has(self.secretName) || !has(self.secretKey) || self.secretKey == 'password'")
        .message("auth.secretKey names a key of auth.secretName; in the Secret that is generated it is password")
)]
pub struct Auth {
    /// A Secret in the same namespace that holds the password. It is read when the cluster is made, and
    /// a change of it later is not taken up. Absent: one is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// The key in it.
    #[serde(default = "defaults::secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_key: String,
    /// No password: whoever reaches the port may do everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// TLS of clients.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.secretName) || !has(self.clientAuth) || self.clientAuth == 'None'")
        .message("tls.clientAuth needs tls.secretName: whose certificates clients may show is said by the ca.crt in it")
)]
pub struct Tls {
    /// A Secret in the same namespace with tls.crt, tls.key and ca.crt, as cert-manager writes it. Members dial each other
    /// with the same certificate. A new one in it is taken up without a restart. Absent: Larder issues one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Whether clients show a certificate from the CA in the Secret.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// Whether clients show a certificate.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum ClientAuth {
    /// They need none.
    #[default]
    None,
    /// They may, and one that they show must be good.
    Optional,
    /// They must.
    Required,
}

impl ClientAuth {
    /// The word that `tls-auth-clients` takes.
    pub fn directive(self) -> &'static str {
        match self {
            Self::None => "no",
            Self::Optional => "optional",
            Self::Required => "yes",
        }
    }
}

/// Clients of RESP that follow nothing. They are served at the port plain (6380) of the Services NAME and NAME-N-primary, by TLS where
/// spec.tls says so.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plain {
    /// Whether they are served. A change restarts the members, one after another.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
}

/// Clients of memcached. Every member serves every key, at the port memcached of the Services NAME and NAME-N-primary;
/// with a password they log in as the user default.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memcached {
    /// Whether they are served. A change restarts the members, one after another.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
    /// Largest item, key and value with it. Absent: 1Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = QUANTITY_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!isQuantity(self) || (quantity(self).compareTo(quantity('1Ki')) >= 0 && quantity(self).compareTo(quantity('1Gi')) <= 0)"
        ).message("memcached.itemSizeMax must be between 1Ki and 1Gi")
    )]
    pub item_size_max: Option<String>,
    /// Whether flush_all is obeyed.
    #[serde(default = "defaults::yes")]
    pub flush: bool,
}

mod defaults {
    pub(super) fn secret_key() -> String {
        "password".into()
    }
    pub(super) fn yes() -> bool {
        true
    }
}
