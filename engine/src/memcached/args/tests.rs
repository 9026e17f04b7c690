use super::*;
use crate::config::Config;

fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(String::from).collect()
}

fn config(line: &str) -> Config {
    match read(&words(line)) {
        Ok(Asked::Serve(directives, _)) => Config::from_args(&directives).unwrap(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_flag_is_the_directive_that_means_the_same() {
    let line = "-m 100 -p 11311 -l 127.0.0.1,[::1] -c 2000 -t 3 -I 2m -vv -U 0 -A -F -X -b 77";
    let c = config(line);
    for (name, value) in [
        ("maxmemory", "104857600"),
        ("memcached-port", "11311"),
        ("bind", "127.0.0.1 ::1"),
        ("protected-mode", "no"),
        ("maxclients", "2000"),
        ("io-threads", "3"),
        ("memcached-item-size-max", "2097152"),
        ("loglevel", "debug"),
        ("memcached-shutdown", "yes"),
        ("memcached-flush", "no"),
        ("memcached-dump-keys", "no"),
        ("tcp-backlog", "77"),
        ("maxmemory-policy", "allkeys-lru"),
        ("port", "0"),
        ("save", ""),
    ] {
        assert_eq!(c.get(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn flags_come_in_every_form_that_memcached_takes() {
    for line in [
        "-m100 -vA -M",
        "--memory-limit=100 --verbose --enable-shutdown --disable-evictions",
        "--memory-limit 100 -v -AM -f 1.25 -n 48 -L -R20 -C -o modern,hash_algorithm=murmur3",
    ] {
        let c = config(line);
        assert_eq!(c.get("maxmemory").as_deref(), Some("104857600"), "{line}");
        assert_eq!(c.get("loglevel").as_deref(), Some("verbose"), "{line}");
        assert!(c.is_yes("memcached-shutdown"), "{line}");
        assert_eq!(c.get("maxmemory-policy").as_deref(), Some("noeviction"), "{line}");
    }
    let c = config("-o idle_timeout=30 -l 127.0.0.1:11999");
    assert_eq!(c.get("timeout").as_deref(), Some("30"));
    assert_eq!(c.get("memcached-port").as_deref(), Some("11999"));
}

#[test]
fn without_flags_it_is_memcached_with_its_defaults() {
    let c = config("");
    for (name, value) in [
        ("memcached-port", "11211"),
        ("maxmemory", "67108864"),
        ("maxclients", "1024"),
        ("memcached-item-size-max", "1048576"),
        ("protected-mode", "yes"),
    ] {
        assert_eq!(c.get(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn a_socket_in_the_file_system_is_in_place_of_tcp() {
    let c = config("-s /tmp/m.sock -a 0770 -p 11211");
    assert_eq!(c.get("memcached-port").as_deref(), Some("0"));
    assert_eq!(c.get("memcached-unixsocket").as_deref(), Some("/tmp/m.sock"));
    assert_eq!(c.get("memcached-unixsocketperm").as_deref(), Some("0770"));
}

#[test]
fn directives_behind_two_dashes_count_more_than_flags() {
    let c = config("-m 64 -- --maxmemory 1gb --appendonly yes --port 7000");
    assert_eq!(c.get("maxmemory").as_deref(), Some("1073741824"));
    assert!(c.is_yes("appendonly"));
    assert_eq!(c.get("port").as_deref(), Some("7000"));
}

#[test]
fn what_cannot_be_kept_to_is_refused_with_a_reason() {
    for (line, word) in [
        ("-d", "-d is not supported: a server in the background"),
        ("-vd", "-d is not supported"),
        ("--daemon", "--daemon is not supported"),
        ("-U 11211", "only -U 0"),
        ("-Q", "unknown flag -Q"),
        ("--nothing", "unknown flag --nothing"),
        ("-m", "-m needs a value"),
        ("-m 1x", "-m 1x: not a number"),
        ("-p 70000", "not a number that fits"),
        ("-I 10", "from 1k to 1024m"),
        ("-I 2000m", "from 1k to 1024m"),
        ("-l ,", "not an address"),
        ("-l 127.0.0.1:1,127.0.0.1:2", "all addresses have one port"),
        ("-l 127.0.0.1:1 -p 2", "all addresses have one port"),
        ("-S", "-S needs users"),
        ("-B binary", "only auto"),
        ("-o proxy_config=x", "the option proxy_config is not supported"),
        ("-Z", "-Z needs a certificate"),
        ("-Z -o ssl_chain_cert=c,ssl_verify_mode=4", "ssl_verify_mode is 0"),
        ("-Z -o ssl_chain_cert=c,ssl_min_version=tlsv1.1", "tlsv1.2 or tlsv1.3"),
        ("-Z -o ssl_chain_cert=c,ssl_keyformat=2", "keys are PEM"),
        ("word", "unexpected argument 'word'"),
    ] {
        let error = read(&words(line)).unwrap_err();
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn help_version_and_the_user_are_told() {
    let Ok(Asked::Print(text)) = read(&words("-m 5 -h")) else { panic!("no help") };
    assert!(text.contains("--memory-limit") && !text.contains("--daemon"), "{text}");
    assert_eq!(read(&words("-V")), Ok(Asked::Print(format!("memcached {VERSION}"))));
    assert!(
        matches!(read(&words("-u nobody")), Ok(Asked::Serve(_, Some(user))) if user == "nobody")
    );
}
