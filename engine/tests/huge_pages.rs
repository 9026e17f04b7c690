//! Memory that stays is put into huge pages, and nothing is noticed of it but that.

mod support;

use std::time::Duration;

use support::{Client, Server, encode, value::text};

/// Small ones of one size: their slabs leave no page untouched.
const KEYS: usize = 600_000;
const VALUE_BYTES: usize = 16;
/// Of some 32 MB.
const HUGE_BYTES: u64 = 16 << 20;
/// How often it is asked, and how many times.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: usize = 1_200;

/// Kilobytes, summed over the process's memory.
fn smaps(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn value(number: usize) -> String {
    format!("{number:0>VALUE_BYTES$}")
}

fn fill(client: &mut Client) {
    for first in (0..KEYS).step_by(2_000) {
        let keys = first..first + 2_000;
        let all: Vec<u8> = keys
            .clone()
            .flat_map(|n| encode(&["SET", &format!("key:{n:012}"), &value(n)]))
            .collect();
        client.send_raw(&all);
        keys.for_each(|_| assert_eq!(text(&client.reply().unwrap()), "OK"));
    }
}

/// The kernel's version as a pair; it collapses pages at a process's wish since 6.1.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn what_stays_is_put_into_huge_pages_without_growing() {
    if kernel() < (6, 1) {
        println!("skipped: Linux {:?} collapses no pages at a process's wish", kernel());
        return;
    }
    let server = Server::larder(&["--larder-huge-pages", "no"]);
    let mut client = server.connect();
    fill(&mut client);
    assert_eq!(smaps(server.pid(), "AnonHugePages"), 0, "none is made where it is not wanted");
    let before = smaps(server.pid(), "Rss");
    assert_eq!(text(&client.words("CONFIG SET larder-huge-pages yes")), "OK");
    let is_huge = || smaps(server.pid(), "AnonHugePages") * 1024 >= HUGE_BYTES;
    let waited = (0..LOOKS).take_while(|_| !is_huge()).map(|_| std::thread::sleep(LOOK)).count();
    assert!(waited < LOOKS, "{} kB", smaps(server.pid(), "AnonHugePages"));
    let after = smaps(server.pid(), "Rss");
    assert!(after <= before + before / 20, "{before} kB resident before, {after} since");
    for number in (0..KEYS).step_by(97) {
        assert_eq!(text(&client.words(&format!("GET key:{number:012}"))), value(number));
    }
    let info = text(&client.words("INFO memory"));
    let told = info.lines().find_map(|line| line.strip_prefix("larder_huge_page_bytes:")).unwrap();
    assert!(told.trim().parse::<u64>().unwrap() > 0, "{told}");
}
