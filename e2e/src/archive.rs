//! Writes container images as one archive, without a container engine.
//!
//! The form is that of `docker save`, which `ctr images import` and `docker load` take: a config and a layer per image,
//! and one `manifest.json`. Everything that could differ between two builds of the same input (times, owners, order)
//! is fixed, so that the same binaries give the same bytes.
//!
//! ```text
//! manifest.json                 [{Config, RepoTags, Layers}, ...]
//! <sha256 of config>.json       user, entry point, environment, diff id of the layer
//! <sha256 of layer>/layer.tar   etc/passwd, etc/group, the CA bundle, the program
//! ```

use crate::failure::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The user that every image runs as.
pub const USER: u32 = 65532;

/// A file or folder in an image; folders have no content.
pub struct Entry {
    pub path: String,
    pub content: Option<Vec<u8>>,
    pub mode: u32,
    pub owner: u32,
}

impl Entry {
    pub fn file(path: &str, content: Vec<u8>, mode: u32) -> Self {
        Self { path: path.to_owned(), content: Some(content), mode, owner: 0 }
    }

    pub fn folder(path: &str, mode: u32, owner: u32) -> Self {
        Self { path: format!("{path}/"), content: None, mode, owner }
    }
}

/// One image: a name with tag, one layer, and how it is run.
pub struct Image {
    pub name: String,
    pub entries: Vec<Entry>,
    pub entrypoint: Vec<String>,
    pub user: u32,
    pub labels: BTreeMap<String, String>,
}

/// The archive of some images. Layers that are equal are stored once.
pub fn archive(images: &[Image]) -> Result<Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut manifest = Vec::new();
    for image in images {
        let layer = tar(&image.entries)?;
        let layer_digest = digest(&layer);
        let config = serde_json::to_vec(&config(image, &layer_digest))?;
        let config_name = format!("{}.json", digest(&config));
        let layer_name = format!("{layer_digest}/layer.tar");
        manifest
            .push(json!({"Config": config_name, "RepoTags": [image.name], "Layers": [layer_name]}));
        files.insert(config_name, config);
        files.insert(layer_name, layer);
    }
    files.insert("manifest.json".to_owned(), serde_json::to_vec(&Value::Array(manifest))?);
    let entries: Vec<Entry> =
        files.into_iter().map(|(path, content)| Entry::file(&path, content, 0o644)).collect();
    tar(&entries)
}

/// Writes an archive to a file, whole or not at all.
pub fn write(file: &Path, images: &[Image]) -> Result {
    let part = file.with_extension("part");
    std::fs::write(&part, archive(images)?)?;
    std::fs::rename(part, file)?;
    Ok(())
}

fn config(image: &Image, layer_digest: &str) -> Value {
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2000-01-01T00:00:00Z",
        "config": {
            "User": format!("{0}:{0}", image.user),
            "Entrypoint": image.entrypoint,
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/"],
            "WorkingDir": "/",
            "Labels": image.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{"created": "2000-01-01T00:00:00Z", "created_by": "cargo e2e image"}],
    })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// A ustar archive: a header block of 512 bytes per entry, content padded to blocks, two empty blocks at the end.
fn tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for entry in entries {
        crate::ensure!(entry.path.len() < 100, "{}: path is too long for a tar header", entry.path);
        let content = entry.content.as_deref().unwrap_or_default();
        let mut header = [0u8; 512];
        put(&mut header, 0, entry.path.as_bytes());
        put(&mut header, 100, format!("{:07o}", entry.mode).as_bytes());
        put(&mut header, 108, format!("{:07o}", entry.owner).as_bytes());
        put(&mut header, 116, format!("{:07o}", entry.owner).as_bytes());
        put(&mut header, 124, format!("{:011o}", content.len()).as_bytes());
        put(&mut header, 136, format!("{:011o}", 946_684_800).as_bytes());
        put(&mut header, 148, b"        ");
        put(&mut header, 156, if entry.content.is_some() { b"0" } else { b"5" });
        put(&mut header, 257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    Ok(out)
}

fn put(header: &mut [u8; 512], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Image {
        Image {
            name: name.to_owned(),
            entries: vec![
                Entry::folder("data", 0o755, USER),
                Entry::file("data/hello", b"hello".to_vec(), 0o644),
            ],
            entrypoint: vec!["/hello".to_owned()],
            user: USER,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn same_input_gives_the_same_bytes() {
        assert_eq!(archive(&[image("a:1")]).unwrap(), archive(&[image("a:1")]).unwrap());
    }

    #[test]
    fn equal_layers_are_stored_once() {
        let one = archive(&[image("a:1")]).unwrap();
        let two = archive(&[image("a:1"), image("b:1")]).unwrap();
        assert!(two.len() < one.len() + 2048, "{} and {}", one.len(), two.len());
    }

    #[test]
    fn the_system_tar_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.tar");
        write(&file, &[image("a:1")]).unwrap();
        let list = crate::sh!("tar", "tvf", file).unwrap();
        assert!(list.contains("manifest.json") && list.contains("layer.tar"), "{list}");
        assert!(list.contains("2000-01-01"), "{list}");
    }
}
