//! TLS of the clients' ports, and of what this server dials.
//!
//! ```text
//! listeners -> lane: accept, handshake (a thread of its own) -> event_loop: `Connection::Tls`, read and written as any other
//!                                                            -> `stream::Stream`, once a thread takes it over (replicas, moves)
//! settings (tls-*) -> accepting, dialling: read anew when a file or a setting changes
//! ```
//!
//! Handshakes cost a thousand requests each, and anybody may ask for one: none is made on an event loop, so that a
//! flood of them slows others that want to come in, and nobody who is in. A new certificate serves who comes from
//! then on; one that does not fit changes nothing.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};

use crate::bus::transport::Ends;
use crate::config::Config;

pub mod lane;
pub mod name;
pub mod pem;
pub mod secure;
mod sessions;
pub mod settings;
mod suites;

use settings::{Accepting, Settings, Stamp};

/// What clients' connections are accepted and others' dialled with at the moment.
#[derive(Default)]
pub struct Tls {
    accepting: RwLock<Option<Arc<Accepting>>>,
    dialling: Mutex<Option<Arc<ClientConfig>>>,
    mutual: Mutex<Option<Arc<ServerConfig>>>,
    /// Files that were tried last, whether or not they fitted: tried again only when one of them changes.
    tried: Mutex<Vec<Stamp>>,
    pub stats: Stats,
}

#[derive(Default)]
pub struct Stats {
    /// Under way now.
    pub handshakes: AtomicU64,
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub timed_out: AtomicU64,
    pub reloads: AtomicU64,
    pub failed_reloads: AtomicU64,
}

/// The values of the settings.
fn settings_of(config: &Config) -> Settings {
    Settings::of(|name| config.get(name).unwrap_or_default())
}

/// The setting is one of those that connections are made with.
pub fn concerns(name: &[u8]) -> bool {
    name.to_ascii_lowercase().starts_with(b"tls-")
}

/// Some port of clients speaks TLS.
pub fn is_served(config: &Config) -> bool {
    let by_tls = |tls: &str, port: &str| config.is_yes(tls) && config.int(port, 0) != 0;
    config.int("tls-port", 0) != 0
        || by_tls("memcached-tls", "memcached-port")
        || by_tls("larder-plain-tls", "larder-plain-port")
}

fn is_dialled(get: &dyn Fn(&str) -> String) -> bool {
    get("tls-replication") == "yes" || get("tls-cluster") == "yes"
}

impl Tls {
    /// Reads what the settings name, where any of it is used.
    ///
    /// # Errors
    /// What is missing or does not fit.
    pub fn open(config: &Config) -> io::Result<Tls> {
        let tls = Tls::default();
        let check = |e: io::Error| {
            tracing::error!("Failed to configure TLS: {e}");
            io::Error::new(e.kind(), format!("Failed to configure TLS: {e}"))
        };
        let settings = settings_of(config);
        if is_served(config) {
            tls.take(settings.accepting().map_err(check)?);
        }
        if is_dialled(&|name| config.get(name).unwrap_or_default()) {
            settings.dialling().map_err(check)?;
        }
        if config.is_yes("tls-cluster") && config.is_yes("cluster-enabled") {
            settings.mutual().accepting().map_err(check)?;
        }
        Ok(tls)
    }

    fn take(&self, accepting: Accepting) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = accepting.files.clone();
        *self.accepting.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(accepting));
    }

    fn current(&self) -> Option<Arc<Accepting>> {
        self.accepting.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the next connection is accepted with; `None`: no port speaks TLS.
    pub fn accepting(&self) -> Option<Arc<ServerConfig>> {
        self.current().map(|accepting| accepting.config.clone())
    }

    /// Certificates that INFO tells of: the server's, the one for dialling, the CA's.
    pub fn shown(&self) -> [Option<CertificateDer<'static>>; 3] {
        self.current().map_or([None, None, None], |accepting| accepting.shown.clone())
    }

    /// What other servers are dialled with: read anew, or what was good before when that does not fit (any more).
    ///
    /// # Errors
    /// What does not fit, when nothing ever did.
    pub fn dialling(&self, config: &Config) -> io::Result<Arc<ClientConfig>> {
        let mut last = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        match (settings_of(config).dialling(), &*last) {
            (Ok(fresh), _) => Ok(last.insert(fresh).clone()),
            (Err(error), Some(kept)) => {
                tracing::warn!(%error, "dialling with the certificates of before");
                Ok(kept.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Both ends of the bus of an unmanaged cluster, on which everybody shows a certificate.
    ///
    /// # Errors
    /// What does not fit, when nothing ever did.
    pub fn mutual(&self, config: &Config) -> io::Result<Ends> {
        let mut last = self.mutual.lock().unwrap_or_else(PoisonError::into_inner);
        match (settings_of(config).mutual().accepting(), &*last) {
            (Ok(fresh), _) => {
                *last = Some(fresh.config.clone());
                Ok((fresh.config, self.dialling(config)?))
            }
            (Err(error), Some(kept)) => {
                tracing::warn!(%error, "the bus goes on with the certificates of before");
                Ok((kept.clone(), self.dialling(config)?))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Reads everything again, as the settings name it now. What does not fit changes nothing.
    ///
    /// # Errors
    /// What does not fit.
    pub fn reload(&self, config: &Config) -> io::Result<()> {
        if self.current().is_none() {
            return Ok(());
        }
        let settings = settings_of(config);
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = settings.stamps();
        match settings.accepting() {
            Ok(accepting) => {
                self.take(accepting);
                self.stats.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!("certificates are read anew");
                Ok(())
            }
            Err(error) => {
                self.stats.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "TLS goes on with what it had, since what there is now does not fit: {error}"
                );
                Err(error)
            }
        }
    }

    /// Reads everything again when a file has changed since it was last tried.
    pub fn reload_if_changed(&self, config: &Config) {
        let Some(current) = self.current() else { return };
        let changed = {
            let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            settings_of(config).stamps() != *tried
        };
        if changed {
            drop(current);
            // The log has it.
            let _ = self.reload(config);
        }
    }

    /// CONFIG SET: what the settings would come to with these values, where they concern TLS and it is used. What
    /// comes out is for `adopt`, once the values are set.
    ///
    /// # Errors
    /// What does not fit.
    pub fn try_values(
        &self,
        config: &Config,
        pairs: &[(&[u8], &[u8])],
    ) -> io::Result<Option<Accepting>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !pairs.iter().any(|(name, _)| concerns(name)) {
            return Ok(None);
        }
        let get = |name: &str| {
            let given = pairs.iter().rev().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
            given.map_or_else(|| config.get(name).unwrap_or_default(), |(_, value)| text(value))
        };
        let settings = Settings::of(get);
        let accepting = match self.current() {
            Some(_) => Some(settings.accepting()?),
            None => None,
        };
        if is_dialled(&get) {
            settings.dialling()?;
        }
        Ok(accepting)
    }

    pub fn adopt(&self, accepting: Option<Accepting>) {
        if let Some(accepting) = accepting {
            self.take(accepting);
        }
    }
}
