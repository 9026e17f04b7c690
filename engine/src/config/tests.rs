use super::*;

fn args(text: &str) -> Vec<String> {
    file::split_words(text).unwrap()
}

fn with_file(text: &str, flags: &str) -> (tempfile::TempDir, Result<Config, String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.conf");
    std::fs::write(&path, text).unwrap();
    let mut all = vec![path.to_string_lossy().into_owned()];
    all.extend(args(flags));
    (dir, Config::from_args(&all))
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "# a comment\nport 7000\nmaxmemory 2gb\nsave 900 1\nsave 300 10\nappendonly yes\n";
    let (_dir, config) = with_file(text, "--port 7001 --save \"\" --larder-name demo-0-0");
    let config = config.unwrap();
    assert_eq!(config.int("port", 0), 7001);
    assert_eq!(config.hot().maxmemory, 2_147_483_648);
    assert_eq!(config.get("save").as_deref(), Some(""));
    assert!(config.is_yes("appendonly"));
    assert_eq!(config.get("timeout").as_deref(), Some("0"));
    assert_eq!(config.get("larder-name").as_deref(), Some("demo-0-0"));
    assert_eq!(config.get("nosuch"), None);
}

#[test]
fn save_lines_add_up_and_replace_the_default() {
    let (_dir, config) = with_file("save 900 1\nsave 300 10\n", "");
    assert_eq!(config.unwrap().get("save").as_deref(), Some("900 1 300 10"));
}

#[test]
fn a_comment_behind_a_value_is_refused_with_its_line() {
    let (_dir, config) = with_file("port 7000\n\nappendfsync everysec # text\n", "");
    let error = config.err().unwrap();
    assert_eq!(
        error,
        "Reading the configuration file, at line 3\n>>> 'appendfsync everysec # text'\n\
         wrong number of arguments"
    );
}

#[test]
fn bad_values_are_refused_with_a_reason() {
    for (text, reason) in [
        ("nosuch 1\n", "Bad directive"),
        ("port 70000\n", "between 0 and 65535"),
        ("port x\n", "integer"),
        ("appendonly maybe\n", "'yes' or 'no'"),
        ("maxmemory 2xb\n", "memory value"),
        ("maxmemory-policy lru\n", "one of the following"),
        ("tls-dh-params-file x.pem\n", "not supported"),
        ("loadmodule x.so\n", "not supported"),
        ("rename-command nosuch x\n", "No such command"),
        ("dir \"x\n", "Unbalanced quotes"),
    ] {
        let (_dir, config) = with_file(text, "");
        let error = config.err().unwrap();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(error.contains("at line 1"), "{error}");
    }
}

#[test]
fn included_files_are_read_where_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.conf"), "timeout 7\nhz 20\n").unwrap();
    let main = dir.path().join("main.conf");
    std::fs::write(&main, "timeout 5\ninclude more.conf\nhz 30\n").unwrap();
    let config = Config::from_args(&[main.to_string_lossy().into_owned()]).unwrap();
    assert_eq!(config.get("timeout").as_deref(), Some("7"));
    assert_eq!(config.get("hz").as_deref(), Some("30"));
    std::fs::write(&main, "include main.conf\n").unwrap();
    assert!(Config::from_args(&[main.to_string_lossy().into_owned()]).is_err());
}

#[test]
fn set_live_is_all_or_nothing_and_guards_fixed_names() {
    let config = Config::from_args(&[]).unwrap();
    config.set_live(&[(b"MaxMemory", b"100mb"), (b"hash-max-ziplist-entries", b"4")]).unwrap();
    assert_eq!(config.maxmemory(), 100 << 20);
    assert_eq!(config.hot().limits.hash_max_listpack_entries, 4);
    let generation = config.generation();
    let error = config.set_live(&[(b"maxmemory", b"1gb"), (b"timeout", b"x")]).unwrap_err();
    assert!(error.starts_with("ERR CONFIG SET failed (possibly related to argument 'timeout')"));
    assert_eq!(config.maxmemory(), 100 << 20);
    assert_eq!(config.generation(), generation);
    assert!(config.set_live(&[(b"port", b"1")]).unwrap_err().contains("immutable"));
    assert!(config.set_live(&[(b"dir", b"/tmp")]).unwrap_err().contains("protected"));
    assert!(config.set_live(&[(b"nosuch", b"1")]).unwrap_err().contains("Unknown option"));
}

#[test]
fn rewrite_keeps_comments_and_order_and_reads_back_the_same() {
    let text = "# top\nport 7000\n\n# memory\nmaxmemory 1gb\nsave 900 1\nsave 60 5\n";
    let (dir, config) = with_file(text, "--timeout 3");
    let config = config.unwrap();
    config.set_live(&[(b"maxmemory", b"2gb"), (b"requirepass", b"a b\"c")]).unwrap();
    config.rewrite(&[]).unwrap();
    let path = dir.path().join("redis.conf");
    let new = std::fs::read_to_string(&path).unwrap();
    assert!(new.starts_with(
        "# top\nport 7000\n\n# memory\nmaxmemory 2147483648\nsave 900 1\nsave 60 5\n"
    ));
    let again = Config::from_args(&[path.to_string_lossy().into_owned()]).unwrap();
    for name in ["port", "maxmemory", "save", "timeout", "requirepass"] {
        assert_eq!(again.get(name), config.get(name), "{name}");
    }
    assert!(Config::from_args(&[]).unwrap().rewrite(&[]).is_err());
}

#[test]
fn only_managed_members_take_maxmemory_from_the_container() {
    let limits = cgroup::CgroupLimits { memory: Some(1 << 30), cpu_milli: Some(2000) };
    for (line, expected) in [("larder-managed no", "0"), ("larder-managed yes", "805306368")] {
        let mut builder = Builder::default();
        builder.take(&args(line)).unwrap();
        builder.size_by_cgroup(limits, 8);
        assert_eq!(builder.values["maxmemory"], expected);
        assert_eq!(builder.values["io-threads"], "2");
    }
    let mut builder = Builder::default();
    builder.take(&args("io-threads 3")).unwrap();
    builder.take(&args("larder-managed yes")).unwrap();
    builder.take(&args("maxmemory 5mb")).unwrap();
    builder.size_by_cgroup(limits, 8);
    assert_eq!(builder.values["io-threads"], "3");
    assert_eq!(builder.values["maxmemory"], "5242880");
}
