//! The ConfigMap with the engine's configuration, the same for all members.

use std::fmt::Write as _;

use serde_json::json;

use super::{BUS_PORT, Build, Kind, METRICS_PORT, Object, PORT};

/// Where the projected volume with configuration, certificate and password is mounted.
pub(super) const DIR: &str = "/etc/larder";
/// Where in it the files of the Secret in `spec.tls` are.
pub(super) const GIVEN_TLS: &str = "client-tls";
/// Where the data are.
pub(super) const DATA_DIR: &str = "/data";

pub(super) fn config_map_name(build: &Build) -> String {
    format!("{}-config", build.name())
}

pub(super) fn config_map(build: &Build) -> Object {
    let body = json!({"data": {"larder.conf": conf(build)}});
    build.object(Kind::ConfigMap, config_map_name(build), true, body)
}

/// The configuration file. The manifest's directives come first, so that ours have the last word.
fn conf(build: &Build) -> String {
    let mut conf = build.desired.conf();
    let hash = build.desired.live_hash();
    let _ = write!(
        conf,
        "port {PORT}\n\
         dir {DATA_DIR}\n\
         cluster-enabled yes\n\
         larder-managed yes\n\
         larder-bus-port {BUS_PORT}\n\
         larder-metrics-port {METRICS_PORT}\n\
         larder-tls-dir {DIR}/tls\n\
         larder-config-hash {hash}\n"
    );
    if build.desired.serves_tls() {
        let files = match build.given_tls() {
            Some(_) => GIVEN_TLS,
            None => "tls",
        };
        let _ = write!(
            conf,
            "port 0\n\
             tls-port {PORT}\n\
             tls-cert-file {DIR}/{files}/tls.crt\n\
             tls-key-file {DIR}/{files}/tls.key\n\
             tls-ca-cert-file {DIR}/{files}/ca.crt\n"
        );
    }
    if build.auth_disabled() {
        conf.push_str("protected-mode no\n");
    } else {
        let _ = writeln!(conf, "include {DIR}/auth/auth.conf");
    }
    conf
}
