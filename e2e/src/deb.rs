//! A Debian package of both programs: a unit, a configuration that needs no edit, a user of its own.
//!
//! dpkg-deb makes it of a folder, so that whoever can install it can build it. The programs are those of the images,
//! linked statically: the package fits every release of Debian and Ubuntu.

use crate::clock::eventually;
use crate::failure::{Context, Result};
use crate::local::Scene;
use crate::wire::{Connection, Reply};
use crate::{sh, tools};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is installed besides the programs: the file of `e2e/debian`, and where it goes.
const FILES: &[(&str, &str)] = &[
    ("larder.conf", "etc/larder/larder.conf"),
    ("larder-server.service", "usr/lib/systemd/system/larder-server.service"),
    ("postinst", "DEBIAN/postinst"),
    ("prerm", "DEBIAN/prerm"),
    ("postrm", "DEBIAN/postrm"),
];

#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "arm64";
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURE: &str = "amd64";

/// Packs the programs `larder` and `larder-server` of a folder. `compression` is one of dpkg-deb.
pub fn write(programs: &Path, file: &Path, compression: &str) -> Result {
    let staged = tempfile::tempdir()?;
    let root = staged.path();
    put(root, "DEBIAN/conffiles", b"/etc/larder/larder.conf\n", 0o644)?;
    for (name, to) in FILES {
        let from = tools::project().join("e2e/debian").join(name);
        let mode = if to.starts_with("DEBIAN") { 0o755 } else { 0o644 };
        put(root, to, &fs::read(&from).context(from.display())?, mode)?;
    }
    for name in ["larder", "larder-server"] {
        let program = fs::read(programs.join(name)).context(name)?;
        put(root, &format!("usr/bin/{name}"), &program, 0o755)?;
    }
    let license = fs::read(tools::project().join("LICENSE"))?;
    put(root, "usr/share/doc/larder/copyright", &license, 0o644)?;
    put(root, "DEBIAN/control", control(installed_kib(root)?).as_bytes(), 0o644)?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--root-owner-group")
        .arg(format!("-Z{compression}"))
        .arg("--build")
        .arg(root)
        .arg(file);
    sh::run(&mut dpkg).map(drop)
}

fn control(installed_kib: u64) -> String {
    format!(
        "Package: larder\n\
         Version: {}\n\
         Architecture: {ARCHITECTURE}\n\
         Maintainer: Larder\n\
         Section: database\n\
         Priority: optional\n\
         Installed-Size: {installed_kib}\n\
         Depends: adduser, init-system-helpers\n\
         Suggests: redis-tools\n\
         Description: cache server that speaks the Redis protocol, and its clusters\n\
         \x20larder-server is a cache and data structure server for clients of Redis and\n\
         \x20of Memcached, started as a service on port 6379 of this machine.\n\
         \x20.\n\
         \x20larder runs a whole cluster of them from one manifest, as processes of this\n\
         \x20machine or, as an operator, on Kubernetes.\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn put(root: &Path, to: &str, content: &[u8], mode: u32) -> Result {
    let path = root.join(to);
    let folder = path.parent().context(to)?;
    fs::create_dir_all(folder)?;
    // Whatever the umask of who builds it: others read what is installed.
    let mut above = Some(folder);
    while let Some(folder) = above.filter(|folder| folder.starts_with(root)) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        above = folder.parent();
    }
    fs::write(&path, content)?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
}

fn installed_kib(root: &Path) -> Result<u64> {
    let sizes = sh::run(Command::new("du").args(["-sk", "--exclude=DEBIAN"]).arg(root))?;
    let kib = sizes.split_ascii_whitespace().next().context("du")?;
    kib.parse().context("du")
}

/// What a package holds, besides folders.
const INSTALLED: &[&str] = &[
    "./etc/larder/larder.conf",
    "./usr/bin/larder",
    "./usr/bin/larder-server",
    "./usr/lib/systemd/system/larder-server.service",
    "./usr/share/doc/larder/copyright",
];

/// Of the programs as they were built for the tests.
pub(crate) async fn local_package_starts_as_it_is_unpacked(scene: Scene) -> Result {
    let (file, root) = (scene.folder().join("larder.deb"), scene.folder().join("unpacked"));
    write(&tools::project().join("target/debug"), &file, "none")?;
    let dpkg =
        |what: &str, to: &[&Path]| sh::run(Command::new("dpkg-deb").arg(what).arg(&file).args(to));
    let info = dpkg("--info", &[])?;
    for line in
        ["Package: larder", "Depends: adduser", concat!("Version: ", env!("CARGO_PKG_VERSION"))]
    {
        crate::ensure!(info.contains(line), "{line}: {info}");
    }
    let contents = dpkg("--contents", &[])?;
    let mut files = Vec::new();
    for line in contents.lines() {
        crate::ensure!(line.contains(" root/root "), "somebody else's: {line}");
        let is_open = if line.contains("bin/larder") { "-rwxr-xr-x" } else { "-rw-r--r--" };
        crate::ensure!(line.starts_with('d') || line.starts_with(is_open), "its mode: {line}");
        files.extend(line.split(' ').next_back().filter(|_| !line.starts_with('d')));
    }
    files.sort_unstable();
    crate::ensure!(files == INSTALLED, "{contents}");
    fs::create_dir(&root)?;
    dpkg("--control", &[&root.join("DEBIAN")])?;
    for script in ["postinst", "prerm", "postrm"] {
        sh::run(Command::new("sh").arg("-n").arg(root.join("DEBIAN").join(script)))?;
    }
    dpkg("--extract", &[&root])?;
    start_as_the_unit_does(&root, scene.folder()).await
}

/// In a copy of this machine's system that only the test sees; its script says what holds there.
pub(crate) async fn local_package_is_installed_upgraded_and_purged(scene: Scene) -> Result {
    let (file, root) = (scene.folder().join("larder.deb"), scene.folder().join("system"));
    write(&tools::project().join("target/debug"), &file, "none")?;
    fs::create_dir(&root)?;
    let mut unshare = tokio::process::Command::new("unshare");
    // Its first process ends with this one, and with it all the others.
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh"]);
    unshare.arg(tools::project().join("e2e/debian/installed.sh")).arg(&file).arg(&root);
    let output = unshare.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let error = String::from_utf8_lossy(&output.stderr);
    crate::ensure!(output.status.success(), "{}: {}", output.status, error.trim());
    Ok(())
}

async fn start_as_the_unit_does(root: &Path, folder: &Path) -> Result {
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/larder-server.service"))?;
    let line =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("ExecStart")?;
    let words: Vec<_> =
        line.split(' ').map(|path| root.join(path.trim_start_matches('/'))).collect();
    let (data, port) = (folder.join("data"), tools::free_port()?);
    fs::create_dir(&data)?;
    let mut server = tokio::process::Command::new(&words[0]);
    // The file says 6379 and a folder that only an installed package has.
    server.args(&words[1..]).args(["--port", &port.to_string(), "--dir"]).arg(&data);
    let log = fs::File::create(folder.join("server.log"))?;
    server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    let mut server = server.spawn().context(line)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = eventually("the unpacked server", Duration::from_secs(20), || async {
        let mut client = Connection::open(address, None, Duration::from_secs(1)).await?;
        client.call(&["SET", "key", "value"]).await?.ok()?;
        Ok(client)
    })
    .await?;
    let told = client.call(&["CONFIG", "GET", "appendonly"]).await?.ok()?;
    crate::ensure!(
        told.list().iter().filter_map(Reply::text).eq(["appendonly", "yes"]),
        "{told:?}"
    );
    crate::ensure!(data.join("appendonlydir").is_dir(), "no log in {}", data.display());
    server.kill().await?;
    let version = sh::run(Command::new(root.join("usr/bin/larder")).arg("--version"))?;
    crate::ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    Ok(())
}
