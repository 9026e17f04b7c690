//! The configuration file of one member.

use std::fmt::Write as _;
use std::path::Path;

use super::dir::Ports;
use crate::desired::Desired;

/// Everything that a member's file is made of.
pub(super) struct Member<'a> {
    pub(super) desired: &'a Desired,
    pub(super) name: &'a str,
    pub(super) is_witness: bool,
    pub(super) host: &'a str,
    pub(super) ports: Ports,
    pub(super) password: Option<&'a str>,
    pub(super) data: &'a Path,
    pub(super) tls: &'a Path,
}

/// The file's text. The manifest's directives come first, so that ours have the last word.
pub(super) fn text(member: &Member<'_>) -> String {
    let mut out = member.desired.conf();
    let Ports { port, bus, metrics } = member.ports;
    let (name, host) = (member.name, member.host);
    let _ = write!(
        out,
        "port {port}\n\
         bind {host}\n\
         cluster-enabled yes\n\
         larder-managed yes\n\
         larder-name {name}\n\
         larder-host {host}\n\
         larder-bus-port {bus}\n\
         larder-metrics-port {metrics}\n\
         larder-config-hash {}\n",
        member.desired.live_hash()
    );
    let _ = writeln!(out, "dir {}", quoted(&member.data.display().to_string()));
    let _ = writeln!(out, "larder-tls-dir {}", quoted(&member.tls.display().to_string()));
    if member.desired.serves_tls() {
        let file = |name: &str| quoted(&member.tls.join(name).display().to_string());
        let _ = writeln!(out, "port 0\ntls-port {port}");
        let _ = writeln!(out, "tls-cert-file {}", file("tls.crt"));
        let _ = writeln!(out, "tls-key-file {}", file("tls.key"));
        let _ = writeln!(out, "tls-ca-cert-file {}", file("ca.crt"));
    }
    if member.desired.serves_plain() {
        let _ = writeln!(out, "larder-plain-port {}", member.ports.plain());
    }
    if member.desired.serves_memcached() {
        let _ = writeln!(out, "memcached-port {}", member.ports.memcached());
    }
    if member.is_witness {
        out.push_str("larder-witness yes\n");
    }
    if let Some(password) = member.password {
        let password = quoted(password);
        let _ = writeln!(out, "requirepass {password}\nmasterauth {password}");
    }
    out
}

/// A value in double quotes, as redis.conf reads them.
fn quoted(value: &str) -> String {
    let mut out = String::from('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn ours_come_last_and_paths_are_quoted() {
        let desired = Desired {
            name: "demo".into(),
            generation: None,
            shards: 1,
            replicas: 0,
            paused: false,
            recovery: None,
            shards_at_once: 1,
            rollout: crate::desired::Rollout::default(),
            balance: crate::desired::Balance::default(),
            directives: BTreeMap::from([
                ("port".to_string(), "1".to_string()),
                ("save".to_string(), String::new()),
            ]),
        };
        let text = text(&Member {
            desired: &desired,
            name: "demo-0-0",
            is_witness: false,
            host: "127.0.0.1",
            ports: Ports { port: 7000, bus: 17000, metrics: 27000 },
            password: Some("p\"w"),
            data: Path::new("/a folder/data"),
            tls: Path::new("/tls"),
        });
        assert!(text.starts_with("port 1\nsave \"\"\nport 7000\n"), "{text}");
        assert!(text.contains("dir \"/a folder/data\"\n"), "{text}");
        assert!(text.contains("requirepass \"p\\\"w\"\nmasterauth \"p\\\"w\"\n"), "{text}");
    }
}
