//! Users over sockets: who is refused, who is closed, what stands in the log and in files.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Client, Server, Value, value::text};

fn ok(client: &mut Client, words: &str) {
    assert_eq!(text(&client.words(words)), "OK", "{words}");
}

fn texts(value: Value) -> Vec<String> {
    value.items().iter().map(text).collect()
}

/// A connection of a user.
fn as_user(server: &Server, user: &str, password: &str) -> Client {
    let mut client = server.connect();
    ok(&mut client, &format!("AUTH {user} {password}"));
    client
}

fn is_closed(client: &mut Client) -> bool {
    client.drain(Duration::from_secs(10)).1
}

/// The fields of the newest entry of ACL LOG.
fn newest(client: &mut Client) -> Vec<String> {
    let entry = client.words("ACL LOG 1").items().remove(0);
    texts(entry)
}

fn field(entry: &[String], name: &str) -> String {
    let at = entry.iter().position(|text| text == name).unwrap();
    entry[at + 1].clone()
}

const NO_GET: &str = "NOPERM User al has no permissions to run the 'get' command";

#[test]
fn rights_that_are_taken_away_are_gone_for_whoever_is_connected() {
    let server = Server::larder(&["--io-threads", "2"]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw ~* &* +@all");
    let mut clients: Vec<Client> = (0..4).map(|_| as_user(&server, "al", "pw")).collect();
    clients.iter_mut().for_each(|client| ok(client, "SET a 1"));
    ok(&mut admin, "ACL SETUSER al -get");
    for client in &mut clients {
        assert_eq!(text(&client.words("GET a")), NO_GET);
        ok(client, "SET a 1");
    }
    // Of one that takes them from itself, what stands behind it in the pipeline too.
    let mut pipeline = support::encode(&["ACL", "SETUSER", "al", "-set"]);
    pipeline.extend(support::encode(&["SET", "a", "2"]));
    clients[0].send_raw(&pipeline);
    assert_eq!(text(&clients[0].reply().unwrap()), "OK");
    assert!(text(&clients[0].reply().unwrap()).starts_with("NOPERM"));
    assert_eq!(text(&admin.words("GET a")), "1");
}

#[test]
fn what_was_queued_is_looked_at_again_when_its_turn_comes() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw ~a* &c +@all");
    let mut client = as_user(&server, "al", "pw");
    ok(&mut client, "MULTI");
    for words in ["SET a 1", "SET a2 1", "PUBLISH c m"] {
        assert_eq!(text(&client.words(words)), "QUEUED");
    }
    ok(&mut admin, "ACL SETUSER al resetkeys ~a resetchannels");
    let replies = texts(client.words("EXEC"));
    let refused = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. \
                   This command is no longer allowed for the following reason: no permission to";
    assert_eq!(replies[0], "OK");
    assert_eq!(replies[1], format!("{refused} touch the specified keys"));
    assert_eq!(replies[2], format!("{refused} access one of the channels used as arguments"));
    assert_eq!(admin.words("EXISTS a a2"), Value::Int(1));
    let entry = newest(&mut admin);
    assert_eq!(
        (field(&entry, "context").as_str(), field(&entry, "object").as_str()),
        ("multi", "c")
    );
    // Refused while it is being queued: nothing of it runs.
    ok(&mut client, "MULTI");
    assert!(text(&client.words("SET x 1")).starts_with("NOPERM No permissions to access a key"));
    assert!(text(&client.words("EXEC")).starts_with("EXECABORT"));
}

#[test]
fn subscribers_that_lose_their_channel_and_clients_of_removed_users_are_closed() {
    let server = Server::larder(&["--io-threads", "2"]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw +@all ~* &a &b*");
    let mut on_a = as_user(&server, "al", "pw");
    let mut on_b = as_user(&server, "al", "pw");
    let mut other = as_user(&server, "al", "pw");
    on_a.words("SUBSCRIBE a");
    on_b.words("PSUBSCRIBE b*");
    ok(&mut admin, "ACL SETUSER al resetchannels &a &c");
    assert!(is_closed(&mut on_b), "its pattern is not allowed any more");
    assert_eq!(admin.words("PUBLISH a m"), Value::Int(1), "its channel still is");
    ok(&mut other, "SET k v");
    let listed = text(&admin.words("CLIENT LIST"));
    assert_eq!(listed.matches(" user=al ").count(), 2, "{listed}");
    assert_eq!(admin.words("ACL DELUSER al"), Value::Int(1));
    assert!(is_closed(&mut on_a) && is_closed(&mut other));
    assert!(text(&server.connect().words("AUTH al pw")).starts_with("WRONGPASS"));
}

#[test]
fn clients_are_found_and_killed_by_their_user() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on nopass +@all ~* &*");
    let mut client = as_user(&server, "al", "anything");
    assert!(text(&client.words("CLIENT INFO")).contains(" user=al "));
    assert_eq!(text(&client.words("ACL WHOAMI")), "al");
    assert_eq!(text(&admin.words("CLIENT KILL USER nobody")), "ERR No such user 'nobody'");
    assert_eq!(admin.words("CLIENT KILL USER al"), Value::Int(1));
    assert!(is_closed(&mut client));
    // RESET makes it the default user again.
    let mut client = as_user(&server, "al", "anything");
    client.words("RESET");
    assert_eq!(text(&client.words("ACL WHOAMI")), "default");
    assert!(text(&client.words("CLIENT INFO")).contains(" user=default "));
}

#[test]
fn a_client_that_waits_for_a_key_does_not_get_it_once_it_may_not() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw ~* +@all");
    let mut client = as_user(&server, "al", "pw");
    client.send(&["BLPOP", "l", "0"]);
    while !text(&admin.words("INFO clients")).contains("blocked_clients:1") {
        std::thread::yield_now();
    }
    ok(&mut admin, "ACL SETUSER al resetkeys");
    assert_eq!(admin.words("RPUSH l v"), Value::Int(1));
    assert_eq!(text(&client.reply().unwrap()), "NOPERM No permissions to access a key");
    assert_eq!(admin.words("LLEN l"), Value::Int(1));
}

#[test]
fn the_log_tells_who_was_refused_what_and_how_often() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw ~a &c +get +publish +multi");
    let mut client = as_user(&server, "al", "pw");
    for (words, reason, context, object) in [
        ("CONFIG GET x", "command", "toplevel", "config|get"),
        ("GET x", "key", "toplevel", "x"),
        ("GET x", "key", "toplevel", "x"),
        ("PUBLISH d m", "channel", "toplevel", "d"),
        ("AUTH al wrong", "auth", "toplevel", "AUTH"),
    ] {
        client.words(words);
        let entry = newest(&mut admin);
        let seen = ["reason", "context", "object", "username"].map(|name| field(&entry, name));
        assert_eq!(seen, [reason, context, object, "al"], "{words}");
        assert!(field(&entry, "client-info").contains(" user=al "), "{entry:?}");
        let age: f64 = field(&entry, "age-seconds").parse().unwrap();
        assert!((0.0..60.0).contains(&age), "{age}");
    }
    let entries = admin.words("ACL LOG").items();
    let entries: Vec<Vec<String>> = entries.into_iter().map(texts).collect();
    let counts: Vec<_> =
        entries.iter().map(|e| (field(e, "count"), field(e, "entry-id"))).collect();
    let expected = [("1", "3"), ("1", "2"), ("2", "1"), ("1", "0")];
    assert_eq!(counts, expected.map(|(count, id)| (count.to_string(), id.to_string())));
    assert!(!format!("{entries:?}").contains("wrong"), "passwords are nowhere");
    ok(&mut admin, "CONFIG SET acllog-max-len 2");
    client.words("GET y");
    assert_eq!(admin.words("ACL LOG").items().len(), 2);
    ok(&mut admin, "ACL LOG RESET");
    assert!(admin.words("ACL LOG").items().is_empty());
    let stats = text(&admin.words("INFO stats"));
    for line in ["auth:1", "cmd:1", "key:3", "channel:1"] {
        assert!(stats.contains(&format!("acl_access_denied_{line}\r\n")), "{line}: {stats}");
    }
}

fn conf(dir: &Path, lines: &str) -> PathBuf {
    let path = dir.join("larder.conf");
    std::fs::write(&path, lines).unwrap();
    path
}

#[test]
fn users_of_the_configuration_file_are_there_and_stay_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = conf(
        dir.path(),
        "requirepass first\nuser al on >pw ~\"a'b*\" &c +@all (+get ~x)\n# kept\nuser bo off\n",
    );
    let server = Server::larder_from(&path);
    let mut admin = server.connect();
    ok(&mut admin, "AUTH first");
    assert_eq!(texts(admin.words("ACL USERS")), ["al", "bo", "default"]);
    let mut client = as_user(&server, "al", "pw");
    ok(&mut client, "SET a'bc 1");
    assert!(text(&client.words("SET b 1")).starts_with("NOPERM"));
    ok(&mut admin, "ACL SETUSER cy on >other +ping (~y +set)");
    assert_eq!(admin.words("ACL DELUSER bo x"), Value::Int(1));
    let before = texts(admin.words("ACL LIST"));
    ok(&mut admin, "CONFIG REWRITE");
    drop(server);
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written.contains("# kept\n") && !written.contains("bo") && !written.contains("pw"),
        "{written}"
    );
    assert!(!written.contains("user default"), "requirepass says it all: {written}");
    let server = Server::larder_from(&path);
    let mut admin = as_user(&server, "default", "first");
    assert_eq!(texts(admin.words("ACL LIST")), before, "{written}");
    as_user(&server, "cy", "other");
}

/// What a server that refuses to start says.
fn refused_start(args: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_larder-server"))
        .args(args)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn a_server_with_bad_users_does_not_start_and_tells_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    for (lines, part) in [
        ("user al on >topsecret +nosuch\n", "Unknown command or category name in ACL"),
        ("user al on\nuser al on >topsecret\n", "Duplicate user"),
        ("requirepass topsecret extra\n", "wrong number of arguments"),
        ("user\n", "wrong number of arguments"),
        ("aclfile users.acl\n", "Error loading ACLs"),
        ("aclfile users.acl\nuser al on >topsecret\n", "only one of the two"),
    ] {
        let path = conf(dir.path(), lines);
        let said = refused_start(&[
            &path.to_string_lossy(),
            "--port",
            "0",
            "--dir",
            &dir.path().to_string_lossy(),
        ]);
        assert!(said.contains(part), "{lines}: {said}");
        assert!(!said.contains("topsecret"), "{lines}: {said}");
    }
}

#[test]
fn a_bad_acl_file_refuses_the_whole_and_leaves_the_users_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.acl");
    std::fs::write(&file, "user al on >pw ~* +@all\nuser default on nopass ~* &* +@all\n").unwrap();
    let path = conf(dir.path(), &format!("aclfile {}\n", file.display()));
    let server = Server::larder_from(&path);
    let mut admin = server.connect();
    let mut client = as_user(&server, "al", "pw");
    ok(&mut admin, "ACL SETUSER bo on >pw +get");
    ok(&mut admin, "ACL SAVE");
    let saved = std::fs::read_to_string(&file).unwrap();
    assert_eq!(saved.lines().count(), 3, "{saved}");
    let before = texts(admin.words("ACL LIST"));
    assert_eq!(saved.lines().collect::<Vec<_>>(), before);
    for bad in ["user al on\nuser cy on +nosuch\n", "user al (on\n", "x\n", "user al\nuser al\n"] {
        std::fs::write(&file, bad).unwrap();
        let error = text(&admin.words("ACL LOAD"));
        assert!(
            error.ends_with("no change to the previously active ACL rules was performed"),
            "{error}"
        );
        assert_eq!(texts(admin.words("ACL LIST")), before, "{bad}");
        ok(&mut client, "SET a 1");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(text(&admin.words("ACL LOAD")).starts_with("ERR Error loading ACLs, opening file"));
    // A good one: who is still there goes on under new rules, who is not is closed.
    let mut gone = as_user(&server, "bo", "pw");
    std::fs::write(&file, "user al on >new ~* +@all -get\n\n").unwrap();
    ok(&mut admin, "ACL LOAD");
    assert!(is_closed(&mut gone));
    assert_eq!(text(&client.words("GET a")), NO_GET);
    assert!(text(&server.connect().words("AUTH al pw")).starts_with("WRONGPASS"));
    assert_eq!(texts(admin.words("ACL USERS")), ["al", "default"]);
    // A file that cannot be written changes nothing.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(text(&admin.words("ACL SAVE")).starts_with("ERR There was an error trying to save"));
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[test]
fn a_replica_logs_in_as_the_user_it_is_told() {
    let primary = Server::larder(&["--requirepass", "main"]);
    let mut admin = as_user(&primary, "default", "main");
    ok(&mut admin, "ACL SETUSER copier on >copy +psync +replconf +ping");
    ok(&mut admin, "SET a 1");
    let port = primary.addr.port().to_string();
    let replica = Server::larder(&[
        "--masteruser",
        "copier",
        "--masterauth",
        "copy",
        "--replicaof",
        "127.0.0.1",
        &port,
    ]);
    let mut client = replica.connect();
    for _ in 0..1000 {
        if text(&client.words("GET a")) == "1" {
            let listed = text(&admin.words("CLIENT LIST TYPE replica"));
            assert!(listed.contains(" user=copier "), "{listed}");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{}", replica.log());
}

#[test]
fn the_default_user_can_be_shut_out_and_protected_mode_sees_it() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER root on >pw +@all ~* &*");
    ok(&mut admin, "ACL SETUSER default off");
    ok(&mut admin, "SET who-is-in stays-in");
    let mut new = server.connect();
    assert_eq!(text(&new.words("GET a")), "NOAUTH Authentication required.");
    assert!(text(&new.words("AUTH default x")).starts_with("WRONGPASS"));
    let mut root = as_user(&server, "root", "pw");
    ok(&mut root, "ACL SETUSER default on");
    ok(&mut new, "SET a 1");
    // Without rights it is refused by name, and no key is told.
    ok(&mut root, "ACL SETUSER default -@all +@read resetkeys ~p:*");
    assert_eq!(text(&new.words("GET secret")), "NOPERM No permissions to access a key");
    assert_eq!(
        text(&new.words("SET p:1 x")),
        "NOPERM User default has no permissions to run the 'set' command"
    );
}

#[test]
fn no_command_touches_a_key_that_its_user_may_not_touch() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw +@all ~mine");
    let mut client = as_user(&server, "al", "pw");
    ok(&mut admin, "SET k v");
    let mut refused = 0;
    for row in admin.words("COMMAND").items() {
        let parts = row.items();
        let (name, Value::Int(arity)) = (text(&parts[0]), &parts[1]) else { panic!("no arity") };
        let arity = arity.unsigned_abs() as usize;
        // Words that mean something to commands whose keys are found by their arguments.
        for filler in ["k", "1", "encoding", "streams", "2"] {
            let mut words = vec![name.as_str()];
            words.resize(arity.max(2) + 1, filler);
            words.push("k");
            words.truncate(if filler == "k" { arity.max(2) } else { arity + 2 });
            let keys = admin.command(&[&["COMMAND", "GETKEYS"], words.as_slice()].concat());
            if keys.is_error() || !keys.items().iter().any(|key| text(key) != "mine") {
                continue;
            }
            // What one leaves, and what is routed as a key but is none.
            if ["sunsubscribe", "clusterscan"].contains(&name.as_str()) {
                continue;
            }
            let answer = text(&client.command(&words));
            // Shard channels have slots as keys do.
            let channel = ["spublish", "ssubscribe"].contains(&name.as_str());
            let what = if channel { "channel" } else { "key" };
            assert_eq!(answer, format!("NOPERM No permissions to access a {what}"), "{words:?}");
            refused += 1;
        }
    }
    assert!(refused > 300, "{refused}");
    assert_eq!(texts(admin.words("KEYS *")), ["k"]);
    assert_eq!(text(&admin.words("GET k")), "v");
}

#[test]
fn a_user_keeps_to_its_databases_in_transactions_and_scripts_too() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    ok(&mut admin, "ACL SETUSER al on >pw ~* &* +@all db=0,1");
    let fields = texts_of(admin.words("ACL GETUSER al"));
    assert_eq!(field(&fields, "databases"), "db=0,1");
    let mut client = as_user(&server, "al", "pw");
    let refused = "NOPERM No permissions to access database";
    for (words, reply) in [
        ("SELECT 1", "OK"),
        ("SET a 1", "OK"),
        ("SELECT 2", refused),
        ("GET a", "1"),
        ("COPY a b DB 2", refused),
        ("MOVE a 2", refused),
        ("SWAPDB 1 2", refused),
        ("FLUSHALL", refused),
        ("SELECT 99", refused),
        ("SELECT x", "ERR value is not an integer or out of range"),
        ("MULTI", "OK"),
        ("SELECT 2", refused),
        ("EXEC", "EXECABORT Transaction discarded because of previous errors."),
    ] {
        assert_eq!(text(&client.words(words)), reply, "{words}");
    }
    let script = client.command(&["EVAL", "return redis.pcall('select', '2')", "0"]);
    assert!(text(&script).starts_with("ERR ACL failure in script: No permissions"), "{script}");
    let entry = newest(&mut admin);
    assert_eq!(
        ["reason", "context", "object"].map(|name| field(&entry, name)),
        ["database", "lua", "2"]
    );
    // One whose databases are taken away while it stands in one.
    ok(&mut client, "MULTI");
    assert_eq!(text(&client.words("GET a")), "QUEUED");
    ok(&mut admin, "ACL SETUSER al db=0");
    let replies = texts(client.words("EXEC"));
    assert!(replies[0].ends_with("no permission to access the database"), "{replies:?}");
    assert_eq!(text(&client.words("GET a")), refused);
    ok(&mut client, "SELECT 0");
    assert_eq!(
        text(&admin.words("ACL DRYRUN al SELECT 1")),
        "User al has no permissions to access database 1"
    );
    let told = text(&admin.words("ACL DRYRUN al FLUSHALL"));
    assert_eq!(told, "User al has no permissions to access database FLUSHALL");
}

/// Fields with texts; lists in them as one text.
fn texts_of(value: Value) -> Vec<String> {
    value
        .items()
        .iter()
        .map(|v| match v {
            Value::Array(_) | Value::Set(_) => String::new(),
            other => text(other),
        })
        .collect()
}
