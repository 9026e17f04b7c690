//! The same bytes to this server and to a stock memcached.

use std::collections::BTreeSet;

use crate::{ask, larder, packet, stock, stock_with, text};

/// How many seconds are left depends on where in a second each server asks its clock: they become `#`.
fn without_numbers(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).into_owned();
    let word = |word: &str| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match word.strip_prefix('t') {
            Some(left) if is_number(left) => "t#".to_string(),
            _ => word.to_string(),
        }
    };
    text.split("\r\n")
        .map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\r\n")
}

/// Scripts (no `get` of a number that got shorter: memcached pads it only while no reply still holds the item) of which each starts where the one before has left the keys.
const SCRIPTS: &[&str] = &[
    "\r\n",
    "\n",
    "   \r\n",
    "get\r\n",
    "get a\n",
    "GET a\r\n",
    "set a 5 0 3\r\nabc\r\nget a\r\n",
    "set a 5 0 3 noreply\r\nabc\r\nget a b a\r\n",
    "set a 5 0 3\r\nabcd\r\nget a\r\n",
    "set a 1 0 -1\r\n",
    "set a 1 0 -1 noreply\r\n",
    "set a 0 0\r\n",
    "set a\r\n",
    "set a 0 0 3 foo\r\nabc\r\n",
    "set a 4294967295 0 1\r\na\r\nget a\r\n",
    "cas nokey 0 0 1 1\r\na\r\n",
    "cas a 0 0 1 999999\r\nz\r\nget a\r\n",
    "add a 0 0 1\r\na\r\nreplace zz 0 0 1\r\na\r\nappend zz 0 0 1\r\na\r\n",
    "set a 7 0 1\r\na\r\nappend a 0 0 1\r\nZ\r\nprepend a 0 0 1\r\nY\r\nget a\r\n",
    "incr a 1\r\nincr nn 1\r\nincr a\r\nincr a x\r\nincr a -1\r\n",
    "set n 3 0 2\r\n10\r\ndecr n 1\r\ndecr n 100\r\nincr n 5\r\n",
    "incr n 18446744073709551615\r\nincr n 18446744073709551616\r\nincr n 1 noreply\r\nincr n 1\r\n",
    "set n 0 0 21\r\n184467440737095516159\r\nincr n 1\r\n",
    "set n 0 0 20\r\n18446744073709551615\r\nincr n 1\r\n",
    "set n 0 0 3\r\n12 \r\nincr n 1\r\nset n 0 0 3\r\n12a\r\nincr n 1\r\n",
    "set n 0 0 0\r\n\r\nget n\r\nincr n 1\r\n",
    "delete a\r\ndelete a\r\ndelete a 1\r\ndelete a 0\r\ndelete\r\ndelete a 0 noreply\r\n",
    "touch a 0\r\ntouch a\r\nset a 0 0 1\r\na\r\ntouch a 10\r\ntouch a x\r\ntouch a 10 noreply\r\n",
    "gat 10 a b\r\ngat\r\ngat 10\r\ngat x a\r\ngat -1 a\r\nget a\r\n",
    "set a 0 -1 1\r\nb\r\nget a\r\nset a 0 2592001 1\r\nb\r\nget a\r\n",
    "verbosity\r\nverbosity 1\r\nverbosity x\r\nverbosity 1 2\r\nverbosity 1 2 3\r\n",
    "shutdown\r\nfoo\r\nstats foo\r\nstats detail\r\nstats detail dump\r\nstats detail off\r\n",
    "stats cachedump\r\nlru_crawler\r\nlru_crawler foo\r\nslabs\r\n",
    "set a 0 0 1\nb\nget a\n",
    "set a 0 0 3\r\nabcXXget a\r\n",
    "get  a  b\r\n get a\r\n",
    "mg missing v\r\nmg missing v q\r\nmg missing k Oabc\r\nmg\r\nms a\r\nmd\r\nma\r\n",
    "set f 9 100 2\r\nhi\r\nmg f s t f k h v Oxyz\r\nmg f h\r\nmg f\r\nmg f q\r\nmg f v q\r\n",
    "mg f z\r\nmg f v v\r\nmg f T\r\nmg f Tx\r\nmg f T30 t\r\nmg f T0 t\r\nmg f O\r\n",
    "mg viv N30 v t\r\nmg viv N30 v t\r\nmg viv v\r\nms viv 2\r\nok\r\nmg viv v\r\n",
    "set r 0 20 1\r\na\r\nmg r R30 t\r\nmg r R30 t\r\nmg r R10 t\r\n",
    "ms a 2 F5 T90 k Oq\r\nhi\r\nmg a f t v\r\nms a 2 q\r\nhi\r\n",
    "ms a 2 ME\r\nhi\r\nms newe 2 ME\r\nhi\r\nms a 2 MA\r\nxy\r\nms a 2 MP\r\n<<\r\nmg a v\r\n",
    "ms nokey 1 MR\r\na\r\nms nokey 1 MA\r\na\r\nms a 2 C999999\r\nhi\r\nms nok 2 C999999\r\nhi\r\n",
    "ms a 2 MX\r\nhi\r\nms a 2 MEE\r\nhi\r\nms a 2 Z\r\nhi\r\nms a 2 Tx\r\nhi\r\nms a 2 C\r\nhi\r\n",
    "ms a 2 T60\r\nhi\r\nmd a I T30\r\nmg a v t\r\nmg a v t\r\nms a 2\r\nnw\r\nmg a v\r\n",
    "ms a 2\r\nhi\r\nmd a C999999\r\nmd a k Ox\r\nmd a k Ox\r\nmd a z\r\n",
    "ma n9\r\nma n9 N0\r\nma n9 N0 v t k Oi\r\nma n9 D5 v\r\nma n9 MD v\r\nma n9 MD D100 v\r\nma n9 MX v\r\n",
    "ma n2 N30 J13 v t\r\nma n2 v t\r\nma n2 T60 v t\r\nma n2 C999999\r\nset s 0 0 1\r\nx\r\nma s\r\n",
    "ms Zm9v 2 b k\r\nhi\r\nmg Zm9v b k v\r\nget foo\r\nmg foo v\r\nmd Zm9v b k\r\n",
    "ms Zm9 2 b\r\nhi\r\nmg Zm9 b v\r\nmg = b v\r\nme foo\r\nmg f L P t\r\n",
    "flush_all\r\nget f\r\nflush_all x\r\nflush_all 0\r\nflush_all noreply\r\nflush_all 1 2 3\r\n",
];

#[test]
fn text_and_meta_requests_are_answered_as_memcached_answers_them() {
    let (_server, ours) = larder(&[]);
    let Some((_stock, theirs)) = stock() else { return };
    let mut wrong = Vec::new();
    for script in SCRIPTS {
        let [a, b] = [ours, theirs].map(|addr| without_numbers(&text(addr, script.as_bytes())));
        if a != b {
            wrong.push(format!("{script:?}\n   memcached {b:?}\n   larder    {a:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Monitoring reads facts of each class of sizes by their names. `stats settings` says that the LRU has no segments here.
#[test]
fn facts_of_items_and_slabs_have_the_names_that_memcached_gives_them() {
    let (_server, ours) = larder(&[]);
    let Some((_stock, theirs)) = stock_with(&["-o", "no_modern"]) else { return };
    for group in ["items", "slabs"] {
        let request = format!("set a 0 0 1\r\nx\r\nstats {group}\r\n");
        let [ours, theirs] = [ours, theirs].map(|addr| {
            let reply = String::from_utf8(text(addr, request.as_bytes())).unwrap();
            let names =
                reply.lines().filter_map(|line| line.strip_prefix("STAT ")?.split(' ').next());
            names.filter_map(|name| name.split(':').next_back().map(String::from)).collect()
        });
        let ours: BTreeSet<String> = ours;
        assert_eq!(ours, theirs, "stats {group}");
        assert!(!ours.is_empty());
    }
}

/// The packets of a reply, without their CAS.
fn packets(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while bytes.len() >= 24 {
        let body = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let end = (24 + body).min(bytes.len());
        let mut one = bytes[..end].to_vec();
        let has_cas = one[16..24].iter().any(|b| *b != 0);
        one[16..24].fill(0);
        all.push(format!("{}{}", one.escape_ascii(), if has_cas { " with a CAS" } else { "" }));
        bytes = &bytes[end..];
    }
    all
}

#[test]
fn binary_requests_are_answered_as_memcached_answers_them() {
    let (_server, ours) = larder(&[]);
    let Some((_stock, theirs)) = stock() else { return };
    let set = [0, 0, 0, 9, 0, 0, 0, 0];
    let number = |delta: u64, initial: u64, exptime: u32| {
        [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &exptime.to_be_bytes()].concat()
    };
    let scripts = [
        packet(0x00, 0, &[], b"k", b""),
        packet(0x0c, 0, &[], b"k", b""),
        [packet(0x01, 0, &set, b"k", b"value"), packet(0x00, 0, &[], b"k", b"")].concat(),
        packet(0x0c, 0, &[], b"k", b""),
        packet(0x02, 0, &set, b"k", b"value"),
        packet(0x03, 0, &set, b"none", b"value"),
        packet(0x01, 999_999, &set, b"k", b"value"),
        packet(0x01, 999_999, &set, b"none", b"value"),
        [packet(0x11, 0, &set, b"q", b"1"), packet(0x09, 0, &[], b"none", b"")].concat(),
        [packet(0x0e, 0, &[], b"k", b"!"), packet(0x0f, 0, &[], b"k", b"?")].concat(),
        packet(0x0e, 0, &[], b"none", b"!"),
        packet(0x00, 0, &[], b"k", b""),
        packet(0x05, 0, &number(1, 5, 0), b"n", b""),
        packet(0x05, 0, &number(7, 5, 0), b"n", b""),
        packet(0x06, 0, &number(100, 5, 0), b"n", b""),
        packet(0x05, 0, &number(1, 5, u32::MAX), b"none", b""),
        packet(0x05, 0, &number(1, 5, 0), b"k", b""),
        packet(0x1c, 0, &[0, 0, 0, 60], b"k", b""),
        packet(0x1d, 0, &[0, 0, 0, 60], b"k", b""),
        packet(0x23, 0, &[0, 0, 0, 60], b"k", b""),
        packet(0x1c, 0, &[0, 0, 0, 60], b"none", b""),
        packet(0x1e, 0, &[0, 0, 0, 60], b"none", b""),
        packet(0x04, 999_999, &[], b"k", b""),
        packet(0x04, 0, &[], b"k", b""),
        packet(0x04, 0, &[], b"k", b""),
        packet(0x14, 0, &[], b"k", b""),
        packet(0x20, 0, &[], b"", b""),
        packet(0x7f, 0, &[], b"", b""),
        packet(0x08, 0, &[], b"", b""),
        packet(0x08, 0, &[0, 0, 0, 0], b"", b""),
        packet(0x01, 0, &set, b"big", &vec![b'x'; 1 << 20]),
    ];
    let marker = packet(0x0a, 0, &[], b"", b"");
    let mut end = marker.clone();
    end[0] = 0x81;
    let mut wrong = Vec::new();
    for script in &scripts {
        let [a, b] = [ours, theirs].map(|addr| packets(&ask(addr, script, &marker, &end)));
        if a != b {
            let shown = &script[..script.len().min(60)];
            wrong.push(format!("{}\n   memcached {b:?}\n   larder    {a:?}", shown.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
