//! Password and certificates of a cluster: made once, and repaired when one of the Secrets is lost.
//!
//! What cannot be made again is never overwritten by a guess: a Secret that the store does not have and
//! that is there after all is met as an error, and read in the next round.

use std::time::Duration;

use crds::reasons::{event, reason};
use engine::bus::tls::Tls;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::build::{Build, Secrets, generated_auth_name, operator_tls_name, tls_name};
use super::reconcile::Kubernetes;
use crate::Error;
use crate::desired::Desired;
use crate::pki::{self, Ca, Pair};

/// How often the user's Secret is looked at.
const LOOK_AT_GIVEN: Duration = Duration::from_secs(60);

/// What the stored Secrets of a cluster hold, as far as they are there.
#[derive(Default)]
struct Stored {
    operator: Option<Secret>,
    tls: Option<Secret>,
    auth: Option<Secret>,
}

impl Kubernetes<'_> {
    /// Makes sure that all Secrets are there and say the same, and takes up the operator's identity.
    pub(super) async fn keep_secrets(&mut self, desired: &Desired) -> Result<(), Error> {
        let stored = self.stored(&desired.name);
        let secrets = match self.memory.secrets.clone() {
            Some(secrets) if !self.auth_changed(desired, &secrets) => secrets,
            _ => self.gather(desired, &stored).await?,
        };
        let tls = match self.memory.tls.take() {
            Some(tls) if self.memory.secrets.as_ref() == Some(&secrets) => tls,
            _ => Tls::from_pem(
                secrets.ca.cert.as_bytes(),
                secrets.operator.cert.as_bytes(),
                secrets.operator.key.as_bytes(),
            )
            .map_err(|e| Error::world("take up the operator's certificate", e))?,
        };
        if !desired.paused {
            for object in self.build(desired).secrets(&secrets) {
                self.apply_object(&object).await?;
            }
        }
        self.look_at_given(desired, secrets.password.as_deref()).await;
        self.memory.tls = Some(tls);
        self.memory.secrets = Some(secrets);
        Ok(())
    }

    /// Tells when the user's Secret says another password than the one in force: clients that read it
    /// there would be turned away. A change of it is not taken up in this version.
    async fn look_at_given(&mut self, desired: &Desired, in_force: Option<&str>) {
        let build = self.build(desired);
        let Some((name, key)) = build.given_auth().map(|(n, k)| (n.to_owned(), k.to_owned()))
        else {
            return;
        };
        if self.memory.secret_seen.is_some_and(|at| at.elapsed() < LOOK_AT_GIVEN) {
            return;
        }
        self.memory.secret_seen = Some(Instant::now());
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.namespace);
        // Without an answer nothing is known, and a Secret that is gone misleads nobody.
        let Ok(Some(secret)) = api.get_opt(&name).await else { return };
        if text(Some(&secret), &key).as_deref() != in_force {
            let note = format!(
                "Secret {name} was changed, and this version does not take that up: the password \
                 that it had when the cluster was made stays in force"
            );
            let kind = EventType::Warning;
            self.context.publish(self.cluster, kind, event::PASSWORD_KEPT, &note).await;
        }
    }

    fn auth_changed(&self, desired: &Desired, secrets: &Secrets) -> bool {
        self.build(desired).auth_disabled() == secrets.password.is_some()
    }

    fn stored(&self, cluster: &str) -> Stored {
        let get = |name: String| {
            let at = ObjectRef::<Secret>::new(&name).within(&self.namespace);
            self.context.stores.secrets.get(&at).map(|s| (*s).clone())
        };
        Stored {
            operator: get(operator_tls_name(cluster)),
            tls: get(tls_name(cluster)),
            auth: get(generated_auth_name(cluster)),
        }
    }

    /// Reads what is there, and makes what is not.
    async fn gather(&mut self, desired: &Desired, stored: &Stored) -> Result<Secrets, Error> {
        let build = self.build(desired);
        let password = match build.auth_disabled() {
            true => None,
            false => match self.password(&build, stored).await {
                Ok(password) => Some(password),
                Err(error) => {
                    // A Secret may be made later: the round is tried again, and users are told.
                    if let Some((name, _)) = build.given_auth() {
                        let why = format!("Secret {name}: {error}");
                        self.memory.obstacle = Some((reason::SECRET_MISSING, why));
                    }
                    return Err(error);
                }
            },
        };
        // Members that run have it already, or hold on to what they had.
        if stored.operator.is_none()
            && let Some(name) = build.given_tls()
            && let Err(error) = self.look_for_certificate(name).await
        {
            let why = format!("Secret {name}: {error}");
            self.memory.obstacle = Some((reason::SECRET_MISSING, why));
            return Err(error);
        }
        let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
        certificates(stored, &build.member_names(), year, password)
            .map_err(|e| Error::world("make certificates", e))
    }

    /// The password in force: the one that members were started with, then the given one, then a new one.
    async fn password(&self, build: &Build<'_>, stored: &Stored) -> Result<String, Error> {
        if let Some(known) = text(stored.operator.as_ref(), "password")
            .or_else(|| text(stored.auth.as_ref(), "password"))
        {
            return Ok(known);
        }
        let Some((name, key)) = build.given_auth() else {
            return pki::password().map_err(|e| Error::world("make a password", e));
        };
        let given = self.given(name, "read the password").await?;
        let password = given.text(key)?;
        if password.is_empty() || password.chars().any(char::is_control) {
            return Err(given.unfit(format!("key {key} must be one line of text")));
        }
        Ok(password)
    }

    /// Whether the user's Secret has what members are to be started with.
    async fn look_for_certificate(&self, name: &str) -> Result<(), Error> {
        let given = self.given(name, "read the certificate").await?;
        let (ca, cert, key) =
            (given.text("ca.crt")?, given.text("tls.crt")?, given.text("tls.key")?);
        Tls::from_pem(ca.as_bytes(), cert.as_bytes(), key.as_bytes())
            .map(|_| ())
            .map_err(|e| given.unfit(e.to_string()))
    }

    /// A Secret that the user has made; `action`: what it is read for.
    async fn given(&self, name: &str, action: &'static str) -> Result<Given, Error> {
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let found = api.get_opt(name).await;
        let found = found.map_err(|e| Error::world(format!("read Secret {name}"), e))?;
        let secret = found.ok_or_else(|| Error::world(action, "there is no such Secret"))?;
        Ok(Given { secret, action })
    }

    /// Takes up the operator's certificate as it is stored, and makes nothing.
    pub(super) fn recall_identity(&mut self, cluster: &str) {
        let stored = self.stored(cluster);
        let get = |key: &str| text(stored.operator.as_ref(), key);
        if let (None, Some(ca), Some(cert), Some(key)) =
            (&self.memory.tls, get("ca.crt"), get("tls.crt"), get("tls.key"))
        {
            self.memory.tls = Tls::from_pem(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).ok();
        }
    }
}

/// Certificates as they are stored, made where they are missing.
fn certificates(
    stored: &Stored,
    names: &[String],
    year: i32,
    password: Option<String>,
) -> Result<Secrets, pki::Error> {
    let ca = [&stored.operator, &stored.tls]
        .into_iter()
        .find_map(|s| Ca::from_pem(text(s.as_ref(), "ca.crt")?, text(s.as_ref(), "ca.key")?).ok());
    let ca = match ca {
        Some(ca) => ca,
        None => Ca::new(year)?,
    };
    let signed = |secret: &Option<Secret>| {
        let ours = text(secret.as_ref(), "ca.crt")? == ca.pair.cert;
        let pair = Pair {
            cert: text(secret.as_ref(), "tls.crt")?,
            key: text(secret.as_ref(), "tls.key")?,
        };
        let fits =
            Tls::from_pem(ca.pair.cert.as_bytes(), pair.cert.as_bytes(), pair.key.as_bytes());
        (ours && fits.is_ok()).then_some(pair)
    };
    let operator = match signed(&stored.operator) {
        Some(pair) => pair,
        None => ca.operator(year)?,
    };
    let member = match signed(&stored.tls) {
        Some(pair) => pair,
        None => ca.member(names, year)?,
    };
    Ok(Secrets { ca: ca.pair, member, operator, password })
}

/// One key of a Secret as text.
fn text(secret: Option<&Secret>, key: &str) -> Option<String> {
    let bytes = secret?.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// A user's Secret, and what it is read for.
struct Given {
    secret: Secret,
    action: &'static str,
}

impl Given {
    fn text(&self, key: &str) -> Result<String, Error> {
        text(Some(&self.secret), key)
            .ok_or_else(|| self.unfit(format!("it has no key {key} with text in it")))
    }

    fn unfit(&self, why: String) -> Error {
        Error::world(self.action, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(pairs: &[(&str, &str)]) -> Option<Secret> {
        let data = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
            .collect();
        Some(Secret { data: Some(data), ..Secret::default() })
    }

    fn stored(secrets: &Secrets) -> Stored {
        let of = |pair: &Pair| {
            secret(&[
                ("ca.crt", &secrets.ca.cert),
                ("ca.key", &secrets.ca.key),
                ("tls.crt", &pair.cert),
                ("tls.key", &pair.key),
            ])
        };
        Stored { operator: of(&secrets.operator), tls: of(&secrets.member), auth: None }
    }

    fn made(stored: &Stored) -> Secrets {
        certificates(stored, &["*.demo-members.a.svc".into()], 2026, None).unwrap()
    }

    #[test]
    fn certificates_that_are_there_are_kept() {
        let first = made(&Stored::default());
        assert_eq!(made(&stored(&first)), first);
    }

    #[test]
    fn any_one_lost_secret_comes_back_under_the_same_ca() {
        let first = made(&Stored::default());
        let again = made(&Stored { operator: None, ..stored(&first) });
        assert_eq!((&again.ca, &again.member), (&first.ca, &first.member));
        assert_ne!(again.operator, first.operator);
        let again = made(&Stored { tls: None, ..stored(&first) });
        assert_eq!((&again.ca, &again.operator), (&first.ca, &first.operator));
    }

    #[test]
    fn certificate_of_another_ca_is_not_taken_up() {
        let first = made(&Stored::default());
        let other = made(&Stored::default());
        let mixed = Stored { tls: stored(&other).tls, ..stored(&first) };
        let again = made(&mixed);
        assert_eq!((&again.ca, &again.operator), (&first.ca, &first.operator));
        assert_ne!(again.member, other.member);
    }
}
