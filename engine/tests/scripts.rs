//! Scripts beside other clients: nobody sees half of one, one that runs away can be ended, and what is left of it is
//! the same on replicas and after a restart.

mod processes;

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use processes::{Client, Server};

const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const ENDLESS: &str = "while true do end";

fn start(dir: &tempfile::TempDir, threads: &str, more: &[&str]) -> Server {
    let mut args = vec!["--io-threads", threads, "--busy-reply-threshold", "50"];
    args.extend(more);
    Server::start(dir.path(), &args)
}

/// A client whose script has begun, and that others know to be busy.
fn begin(server: &Server, script: &[&str]) -> Client {
    let mut client = server.client();
    client.send(script).unwrap();
    server.client().until(&["PING"], BUSY);
    client
}

#[test]
fn while_a_script_runs_for_long_others_are_told_and_can_end_it() {
    for threads in ["1", "3"] {
        let dir = tempfile::tempdir().unwrap();
        let server = start(&dir, threads, &[]);
        let mut early = server.client();
        early.ok(&["SET", "k", "v"]);
        let mut client = begin(&server, &["EVAL", ENDLESS, "1", "k"]);
        // On whichever loop they are, before or behind the beginning of the script.
        for one in &mut [early, server.client(), server.client(), server.client()] {
            assert_eq!(one.call(&["GET", "k"]), BUSY);
            assert_eq!(one.call(&["SHUTDOWN"]), BUSY);
            one.ok(&["MULTI"]);
            assert_eq!(one.call(&["SET", "k", "w"]), BUSY);
            assert!(one.call(&["EXEC"]).starts_with("-EXECABORT"));
            assert_eq!(one.call(&["EVAL", "return 1", "0"]), BUSY);
        }
        let mut other = server.client();
        other.ok(&["SCRIPT", "KILL"]);
        let reply = client.reply().unwrap();
        assert!(reply.contains("Script killed by user with SCRIPT KILL"), "{reply}");
        other.until(&["GET", "k"], "v");
        assert!(other.call(&["SCRIPT", "KILL"]).starts_with("-NOTBUSY"));
        assert_eq!(client.call(&["EVAL", "return 7", "0"]), "7");
    }
}

#[test]
fn a_script_that_catches_every_error_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir, "1", &[]);
    let stubborn = [
        "while true do pcall(function() while true do end end) end",
        "local f f = function() pcall(f) return f() end f()",
        "local f f = function() return f() end f()",
        "local f = coroutine.wrap(function() while true do pcall(coroutine.yield) end end) while true do pcall(f) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "while true do redis.pcall('get', 'x') end",
        "local t = {} for i = 1, 30 do t = {t, t} end while true do pcall(cjson.encode, t) end",
        "string.rep('a', 1e6):find(('.-'):rep(30) .. 'b')",
        "while true do pcall(string.find, ('a'):rep(1e6), ('.-'):rep(30) .. 'b') end",
        "('('):rep(1e6):find('%b()')",
        "('a'):rep(1e6):gsub(('a?'):rep(40) .. ('a'):rep(40) .. 'b', '')",
        "for x in ('a'):rep(1e6):gmatch('.-.-.-.-b') do end",
        "local s = ('x'):rep(2e7) while true do local t = s .. s end",
        "local s = ('x'):rep(2e7) while true do s:find('y') end",
        "while true do ('x'):rep(1e7) end",
        "while true do string.rep('', 2^31 - 1) end",
        "while true do table.insert({}, -2^31, 1) end",
        "local t = LONG while true do table.remove(t, 1) end",
        "local t = LONG while true do table.insert(t, 1, 1) end",
        "local t = LONG table.sort(t, rawequal)",
        "local t = LONG table.foreachi(t, function() end)",
        "local t = {} for i = 1, 1e6 do t[i] = i end while true do table.sort(t) end",
        "local t = {} for i = 1, 15 do t = {t, t, t, t} end while true do pcall(cmsgpack.pack, t) end",
        "local s = '[' .. ('1,'):rep(1e6) .. '1]' while true do cjson.decode(s) end",
        "local t = {} for i = 1, 30 do t = {t, t} end return t",
        "local t = setmetatable({}, {__index = function(t, k) while true do end end}) while true do pcall(function() return t.x end) end",
    ];
    // A table of few elements and of great length: any border is one.
    let long = "{1, 2, nil, 4, [5] = 1} do local i, k = 5, 5 * 2 ^ 28 \
                while i < k / 2 do i = i * 2 t[i] = 1 end \
                while k - i > 1 do i = math.floor((i + k) / 2) t[i] = 1 end end assert(#t > 2 ^ 29)";
    for script in stubborn {
        let script = &script.replace("LONG", long);
        let mut client = begin(&server, &["EVAL", script, "0"]);
        server.client().ok(&["SCRIPT", "KILL"]);
        let reply = client.reply().unwrap();
        assert!(reply.contains("Script killed by user"), "{script}: {reply}");
    }
}

#[test]
fn clients_that_wait_for_a_scripts_locks_do_not_keep_it_from_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir, "2", &[]);
    server.client().ok(&["SET", "k", "v"]);
    // They ask before the script is known to be long, so that their loops wait for its lock.
    let mut askers: Vec<Client> = (0..8).map(|_| server.client()).collect();
    let mut client = server.client();
    client.send(&["EVAL", ENDLESS, "1", "k"]).unwrap();
    askers.iter_mut().for_each(|asker| asker.send(&["MGET", "a", "b", "k"]).unwrap());
    let mut other = server.client();
    other.until(&["PING"], BUSY);
    other.ok(&["SCRIPT", "KILL"]);
    assert!(client.reply().unwrap().contains("Script killed"));
    for asker in &mut askers {
        let reply = asker.reply().unwrap();
        assert!(reply == BUSY || reply == "(nil) (nil) v", "{reply}");
    }
}

/// One loop, which stands still while it runs the script: who asks how the server is hears it all the same, and all else waits
/// in its order until the script is said to be too long.
#[test]
fn until_a_script_runs_for_too_long_ping_and_info_are_answered_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--io-threads", "1", "--busy-reply-threshold", "1000"];
    let server = Server::start(dir.path(), &args);
    let mut other = server.client();
    other.ok(&["SET", "k", "v"]);
    other.ok(&["SET", "t", "v", "EX", "1000"]);
    assert!(other.call(&["INFO", "keyspace"]).contains("db0:keys=2,expires=1"));
    let mut waiting = server.client();
    waiting.ok(&["CLIENT", "SETNAME", "w"]);
    let mut client = server.client();
    client.send(&["EVAL", ENDLESS, "1", "k"]).unwrap();
    // The first may be answered before the script begins.
    other.until(&["PING"], "PONG");
    waiting.send(&["GET", "t"]).unwrap();
    waiting.send(&["PING"]).unwrap();
    let mut beside = 0;
    loop {
        let pong = other.call(&["PING"]);
        if pong == BUSY {
            break;
        }
        assert_eq!(pong, "PONG");
        let info = other.call(&["INFO", "keyspace"]);
        assert!(info == BUSY || info.contains("db0:keys=2,expires=1"), "{info}");
        let new = server.client().call(&["CLIENT", "GETNAME"]);
        assert!(new == BUSY || new == "(nil)", "{new}");
        beside += 1;
    }
    assert!(beside > 3, "{beside}");
    // Whoever waited before is told now, too.
    let first = waiting.reply().unwrap();
    assert!(first == BUSY || first == "v", "{first}");
    assert_eq!(waiting.reply().unwrap(), if first == "v" { "PONG" } else { BUSY });
    other.ok(&["SCRIPT", "KILL"]);
    assert!(client.reply().unwrap().contains("Script killed"));
    assert_eq!(waiting.call(&["GET", "k"]), "v");
}

/// What a loop answers in a turn beside a script must not wait for the locks that this script holds, and what it does not
/// answer then is not lost: replies that were ready, requests that were read, a client that has closed its side.
#[test]
fn nothing_beside_a_script_waits_for_its_locks_or_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let port = processes::free_port().to_string();
    let args = ["--io-threads", "1", "--memcached-port", &port];
    let args = [&args[..], &["--busy-reply-threshold", "300"]].concat();
    let server = Server::start(dir.path(), &args);
    let mut other = server.client();
    other.ok(&["SET", "k", "v"]);
    let script = "local t = redis.call('set', KEYS[1], 'w') local n = 0 for i = 1, 2e7 do n = n + i % 7 end return n % 1";
    // More than a turn's requests, the script among them: what is answered before it goes out all the same, and what is behind it.
    let mut many = server.client();
    for _ in 0..1500 {
        many.send(&["INCR", "n"]).unwrap();
    }
    many.send(&["EVAL", script, "1", "k"]).unwrap();
    for _ in 0..700 {
        many.send(&["INCR", "n"]).unwrap();
    }
    let address = format!("127.0.0.1:{port}");
    let mut memcached = std::net::TcpStream::connect(&address).unwrap();
    memcached.write_all(b"stats\r\n").unwrap();
    let mut half = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    half.write_all(b"APPEND half 1\r\n").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let watch = other.call(&["WATCH", "k"]);
    assert!(watch == "OK" || watch == BUSY, "{watch}");
    for expected in 1..=1500 {
        assert_eq!(many.reply().unwrap(), expected.to_string());
    }
    assert_eq!(many.reply().unwrap(), "0");
    for expected in 1501..=2200 {
        assert_eq!(many.reply().unwrap(), expected.to_string());
    }
    let mut text = String::new();
    half.read_to_string(&mut text).unwrap();
    assert!(text == ":1\r\n" || text.starts_with(BUSY), "{text}");
    let mut stats = [0; 5];
    memcached.read_exact(&mut stats).unwrap();
    assert_eq!(&stats, b"STAT ");
    assert_eq!(server.client().call(&["GET", "k"]), "w");
}

/// The same script over and over, each shorter than is too long: who was held back goes on as soon as it has ended.
#[test]
fn who_waits_for_a_script_goes_on_once_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--io-threads", "1"]);
    let mut client = server.client();
    let mut others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let script =
        "local n = 0 for i = 1, 3e6 do n = n + i % 7 end return redis.call('incr', KEYS[1])";
    for round in 1..=10 {
        client.send(&["EVAL", script, "1", "n"]).unwrap();
        for other in &mut others {
            other.send(&["INCR", "m"]).unwrap();
            other.send(&["PING"]).unwrap();
        }
        assert_eq!(client.reply().unwrap(), round.to_string());
        for other in &mut others {
            other.reply().unwrap().parse::<u64>().unwrap();
            assert_eq!(other.reply().unwrap(), "PONG");
        }
    }
    assert_eq!(client.call(&["GET", "m"]), "40");
}

#[test]
fn what_comes_while_a_script_runs_is_read_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir, "1", &[]);
    let mut client = begin(&server, &["EVAL", ENDLESS, "0"]);
    client.send(&["SET", "later", "1"]).unwrap();
    let mut gone = begin(&server, &["PING"]);
    assert_eq!(gone.reply().unwrap(), BUSY);
    drop(gone);
    server.client().until(&["PING"], BUSY);
    server.client().ok(&["SCRIPT", "KILL"]);
    assert!(client.reply().unwrap().contains("Script killed"));
    assert_eq!(client.reply().unwrap(), "OK");
    assert_eq!(client.call(&["GET", "later"]), "1");
}

#[test]
fn a_script_that_has_written_is_ended_with_the_server_only_and_leaves_nothing_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    for threads in ["1", "2"] {
        let more = ["--appendonly", "yes", "--appendfsync", "always"];
        let mut server = start(&dir, threads, &more);
        server.client().ok(&["SET", "before", "1"]);
        let script = "redis.call('set', 'half', 1) redis.call('set', KEYS[1], 2) while true do end";
        let _client = begin(&server, &["EVAL", script, "1", "before"]);
        let mut other = server.client();
        assert!(
            other.call(&["SCRIPT", "KILL"]).starts_with("-UNKILLABLE Sorry the script already")
        );
        assert_eq!(other.call(&["GET", "before"]), BUSY);
        other.send(&["SHUTDOWN", "NOSAVE"]).unwrap();
        assert_eq!(server.ended(), Some(0));
        let server = start(&dir, threads, &more);
        assert_eq!(server.client().call(&["MGET", "before", "half"]), "1 (nil)");
    }
}

/// Money moves between accounts that the scripts do not declare; it is there as a whole for whoever looks.
#[test]
fn scripts_with_undeclared_keys_are_seen_as_a_whole_or_not_at_all() {
    const ACCOUNTS: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--io-threads", "3"]);
    let all: Vec<String> = (0..ACCOUNTS).map(|i| format!("account:{i}")).collect();
    let mut client = server.client();
    all.iter().for_each(|account| client.ok(&["SET", account, "100"]));
    let moves = "redis.call('decrby', KEYS[1], 7) \
                 for i = 1, 20 do redis.call('incr', 'account:' .. (i * 13 + ARGV[1]) % 64) end \
                 for i = 1, 20 do redis.call('decr', 'account:' .. (i * 29 + ARGV[1]) % 64) end \
                 redis.call('incrby', 'account:' .. ARGV[2], 7) return 'moved'";
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let movers: Vec<_> = (0..4usize)
            .map(|mover| {
                let (all, mut client) = (&all, server.client());
                scope.spawn(move || {
                    for round in 0..300 {
                        let [from, to] = [mover * 17 + round * 5, mover * 31 + round * 3];
                        let (from, to) = (&all[from % ACCOUNTS], (to % ACCOUNTS).to_string());
                        let reply =
                            client.call(&["EVAL", moves, "1", from, &round.to_string(), &to]);
                        assert_eq!(reply, "moved");
                    }
                })
            })
            .collect();
        for kind in 0..2 {
            let (all, ends, mut client) = (&all, &ends, server.client());
            scope.spawn(move || {
                let words: Vec<&str> = all.iter().map(String::as_str).collect();
                let sum = "local n = 0 for i = 0, 63 do n = n + redis.call('get', 'account:' .. i) end return n";
                while !ends.load(Ordering::Acquire) {
                    let seen = if kind == 0 {
                        let reply = client.call(&[&["MGET"], words.as_slice()].concat());
                        reply.split(' ').map(|n| n.parse::<i64>().unwrap()).sum()
                    } else {
                        client.call(&["EVAL", sum, "0"]).parse::<i64>().unwrap()
                    };
                    assert_eq!(seen, 100 * ACCOUNTS as i64);
                }
            });
        }
        for mover in movers {
            mover.join().unwrap();
        }
        ends.store(true, Ordering::Release);
    });
}

#[test]
fn keys_that_a_script_did_not_declare_wake_and_break_as_any() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--io-threads", "2"]);
    let (mut waits, mut watches, mut client) = (server.client(), server.client(), server.client());
    waits.send(&["BLPOP", "list", "0"]).unwrap();
    client.until_info("blocked_clients", "1");
    watches.ok(&["WATCH", "watched"]);
    watches.ok(&["MULTI"]);
    watches.call(&["PING"]);
    let script = "redis.call('rpush', 'list', 'a') return redis.call('set', 'watched', 1)";
    client.ok(&["EVAL", script, "0"]);
    assert_eq!(waits.reply().unwrap(), "list a");
    assert_eq!(watches.call(&["EXEC"]), "(nil)");
}

const EFFECTS: &[(&str, &[&str])] = &[
    ("for i = 1, 5 do redis.call('rpush', 'list', math.random(1, 1000000)) end", &[]),
    ("return redis.call('spop', KEYS[1])", &["set"]),
    ("local t = redis.call('time') redis.call('set', 'time', t[1] .. t[2], 'ex', 1000)", &[]),
    ("redis.call('set', KEYS[1], 'done') error('after that')", &["kept"]),
    (
        "redis.call('select', 3) redis.call('incr', 'other') redis.call('select', 0) redis.call('incr', 'n')",
        &[],
    ),
    ("redis.call('hset', 'h', 'f', 1) return redis.call('nosuchcommand')", &[]),
    ("redis.set_repl(redis.REPL_ALL) return redis.call('incrbyfloat', 'float', '0.1')", &[]),
    ("return redis.call('expire', 'n', 1000)", &[]),
    ("redis.call('xadd', 'stream', '*', 'f', 'v')", &[]),
];

fn state(client: &mut Client) -> Vec<String> {
    let mut all = vec![];
    let asks: &[&[&str]] = &[
        &["LRANGE", "list", "0", "-1"],
        &["MGET", "time", "kept", "n", "float"],
        &["HGETALL", "h"],
        &["XRANGE", "stream", "-", "+"],
        &["SELECT", "3"],
        &["GET", "other"],
        &["SELECT", "0"],
    ];
    let members = client.call(&["SMEMBERS", "set"]);
    let mut members: Vec<&str> = members.split(' ').collect();
    members.sort_unstable();
    all.push(members.join(" "));
    all.extend(asks.iter().map(|ask| client.call(ask)));
    all
}

fn run_effects(client: &mut Client) -> String {
    client.call(&["SADD", "set", "a", "b", "c", "d", "e", "f"]);
    for (script, keys) in EFFECTS {
        let count = keys.len().to_string();
        client.call(&[&["EVAL", *script, &count], *keys].concat());
    }
    client.call(&["SCRIPT", "LOAD", "return 'loaded'"])
}

#[test]
fn the_effects_of_scripts_are_the_same_on_replicas_and_after_a_restart() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut primary = Server::start(dirs[0].path(), &["--appendonly", "yes"]);
    let follow = |replica: &Server| {
        let mut client = replica.client();
        client.ok(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        client.until_info("master_link_status", "up");
        client
    };
    let replica = Server::start(dirs[1].path(), &[]);
    let mut followers = vec![follow(&replica)];
    let redis = Server::redis(dirs[2].path(), &[]);
    followers.extend(redis.as_ref().map(follow));
    let mut client = primary.client();
    let hash = run_effects(&mut client);
    let count = followers.len().to_string();
    assert_eq!(client.call(&["WAIT", &count, "20000"]), count);
    let expected = state(&mut client);
    assert!(expected[2].contains("done"), "{expected:?}");
    for follower in &mut followers {
        assert_eq!(state(follower), expected);
        assert_eq!(follower.call(&["EVALSHA", &hash, "0"]), "loaded");
        assert_eq!(
            follower.call(&["EVAL_RO", "return redis.call('get', 'kept')", "1", "kept"]),
            "done"
        );
        let reply = follower.call(&["EVAL", "return redis.call('set', 'x', 1)", "1", "x"]);
        assert!(reply.starts_with("-READONLY"), "{reply}");
        let reply = follower.call(&["EVAL", "#!lua\nreturn 1", "0"]);
        assert!(reply.starts_with("-READONLY You can't write against"), "{reply}");
    }
    primary.kill();
    let primary = Server::on(primary.port, dirs[0].path(), &["--appendonly", "yes"]);
    let mut client = primary.client();
    assert_eq!(state(&mut client), expected);
    assert_eq!(client.call(&["EVALSHA", &hash, "0"]), "loaded");
}

#[test]
fn several_writes_of_a_script_are_one_transaction_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client();
    client.ok(&["SET", "before", "1"]);
    client.call(&["EVAL", "for i = 1, 3 do redis.call('incr', 'n') end", "0"]);
    server.kill();
    let log = std::fs::read_dir(dir.path().join("appendonlydir"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains(".incr."))
        .unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).to_uppercase();
    let words: Vec<&str> = text.lines().filter(|l| !l.starts_with(['*', '$', '#'])).collect();
    let from = words.iter().position(|w| *w == "MULTI").unwrap();
    assert_eq!(words[from..from + 8], ["MULTI", "INCR", "N", "INCR", "N", "INCR", "N", "EXEC"]);
}

#[test]
fn above_maxmemory_scripts_that_grow_are_refused_at_their_first_write() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    client.ok(&["SET", "x", "1"]);
    client.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    let set = "return redis.call('set', 'x', 1)";
    let reply = client.call(&["EVAL", set, "1", "x"]);
    assert!(
        reply.starts_with("-OOM command not allowed when used memory > 'maxmemory'."),
        "{reply}"
    );
    let reply = client.call(&["EVAL", "#!lua\nreturn 1", "0"]);
    assert!(reply.starts_with("-OOM command not allowed"), "{reply}");
    client.ok(&["EVAL", &format!("#!lua flags=allow-oom\n{set}"), "1", "x"]);
    assert_eq!(
        client.call(&["EVAL", "#!lua flags=no-writes\nreturn redis.call('get', 'x')", "1", "x"]),
        "1"
    );
    // One that has freed something may go on, as in Redis.
    client.ok(&["EVAL", "redis.call('del', 'x') return redis.call('set', 'x', 2)", "1", "x"]);
    client.ok(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    client.ok(&["CONFIG", "SET", "maxmemory", "20mb"]);
    for i in 0..200 {
        let key = format!("k{i}");
        client.ok(&[
            "EVAL",
            "return redis.call('set', KEYS[1], string.rep('x', 200000))",
            "1",
            &key,
        ]);
    }
    assert_ne!(client.info("evicted_keys"), "0");
}

#[test]
fn scripts_that_want_too_much_fail_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--larder-script-memory-bytes", "16mb"]);
    let mut client = server.client();
    for script in [
        "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
        "return ('x'):rep(1e9)",
        "local s = 'x' while true do s = s .. s end",
        "local function f() return 1 + f() end return f()",
        "local function f() return pcall(f) end return tostring(f()) .. error('end')",
        "return unpack({}, 1, 1e8)",
        "local t = {} for i = 1, 30 do t = {t, t} end return cjson.encode(t)",
        "return string.format('%99999d', 1)",
        "return cjson.decode(('['):rep(100000))",
        "return cmsgpack.unpack(('\\145'):rep(100000))",
        "return loadstring(string.char(27) .. 'Lua')()",
        "return struct.unpack(('b'):rep(100000), ('x'):rep(100000))",
    ] {
        let reply = client.call(&["EVAL", script, "0"]);
        assert!(reply.starts_with("-ERR"), "{script}: {reply:.200}");
        assert_eq!(client.call(&["EVAL", "return 'well'", "0"]), "well", "{script}");
    }
}
