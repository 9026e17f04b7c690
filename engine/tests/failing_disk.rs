//! A whole server on a disk whose syncs fail for a while: nothing is acknowledged that is not on disk,
//! writes are refused with the reason while reads go on, and service returns by itself.

mod processes;

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::config::Config;
use engine::disk::{Disk, DiskFile, RealDisk};
use processes::{Client, free_port};

/// The system's disk, whose syncs of files fail while the flag is set.
struct FailingDisk {
    fails: Arc<AtomicBool>,
}

struct FailingFile {
    file: Box<dyn DiskFile>,
    fails: Arc<AtomicBool>,
}

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DiskFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        if self.fails.load(Ordering::Acquire) {
            return Err(io::Error::other("made to fail"));
        }
        self.file.sync()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.cut(len)
    }

    fn twin(&self) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FailingFile { file: self.file.twin()?, fails: self.fails.clone() }))
    }
}

impl FailingDisk {
    fn wrap(&self, file: io::Result<Box<dyn DiskFile>>) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FailingFile { file: file?, fails: self.fails.clone() }))
    }
}

impl Disk for FailingDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.make_folder(folder)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(RealDisk.create(path))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(RealDisk.append(path))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        RealDisk.open(path)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.len(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }
}

/// Starts a server of this process; gives its port and the thread that ends with it.
fn start(dir: &Path, disk: Arc<dyn Disk>) -> (u16, std::thread::JoinHandle<io::Result<()>>) {
    let port = free_port();
    let args = format!(
        "--port {port} --bind 127.0.0.1 --save  --appendonly yes --appendfsync always --dir {}",
        dir.display()
    );
    let args: Vec<String> = args.split(' ').map(str::to_string).collect();
    let config = Config::from_args(&args).unwrap();
    (port, std::thread::spawn(move || engine::start::run(config, disk)))
}

/// A connection to a server that serves.
fn ready(port: u16) -> Client {
    for _ in 0..2000 {
        if let Ok(mut client) = Client::try_connect(port)
            && client.try_call(&["DBSIZE"]).is_ok_and(|reply| !reply.starts_with('-'))
        {
            return client;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the server on {port} does not serve");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_disk_that_cannot_sync_stops_writes_and_only_these_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let (port, server) = start(dir.path(), Arc::new(FailingDisk { fails: fails.clone() }));
    let mut client = ready(port);
    client.ok(&["SET", "before", "1"]);

    fails.store(true, Ordering::Release);
    let during = client.try_call(&["SET", "during", "1"]);
    assert!(during.is_err(), "acknowledged what is not on disk: {during:?}");
    let mut client = ready(port);
    let refused = client.call(&["SET", "refused", "1"]);
    assert!(refused.starts_with("-MISCONF Errors writing to the AOF file"), "{refused}");
    assert_eq!(client.call(&["GET", "before"]), "1");
    assert_eq!(client.info("aof_last_write_status"), "err");

    fails.store(false, Ordering::Release);
    client.until(&["SET", "after", "1"], "OK");
    assert_eq!(client.info("aof_last_write_status"), "ok");

    // What a crash at this moment would leave.
    let left = tempfile::tempdir().unwrap();
    copy(dir.path(), left.path());
    client.send(&["SHUTDOWN"]).unwrap();
    server.join().unwrap().unwrap();
    let (port, server) = start(left.path(), Arc::new(RealDisk));
    let mut client = ready(port);
    assert_eq!(client.call(&["MGET", "before", "after"]), "1 1");
    assert_eq!(client.call(&["EXISTS", "refused"]), "0");
    client.send(&["SHUTDOWN"]).unwrap();
    server.join().unwrap().unwrap();
}
