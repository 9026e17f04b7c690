//! Rules and what they make of requests.

use super::super::User;
use super::{Denied, Reason};
use crate::command::find;

fn user(rules: &str) -> User {
    let mut user = User::new("u", 7, false);
    let words: Vec<&[u8]> = rules.split(' ').map(str::as_bytes).collect();
    for rule in super::super::join_selectors(&words).unwrap() {
        let shown = String::from_utf8_lossy(&rule).into_owned();
        user.apply(&rule, false).unwrap_or_else(|error| panic!("{shown}: {}", error.text()));
    }
    user
}

fn check(user: &User, line: &str) -> Result<(), Denied> {
    check_in(user, line, 0)
}

fn check_in(user: &User, line: &str, db: u16) -> Result<(), Denied> {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    user.check(find(args[0]).unwrap(), &args, db)
}

#[test]
fn a_request_needs_the_database_that_it_runs_in_and_those_that_it_names() {
    let alike = user("+@all ~* &* db=0,1");
    for (line, db, at) in [
        ("get a", 1, None),
        ("get a", 2, Some(0)),
        ("ping", 2, None),
        ("publish c m", 2, None),
        ("keys *", 2, Some(0)),
        ("dbsize", 2, Some(0)),
        ("eval x 0", 2, Some(0)),
        ("memory usage k", 2, Some(0)),
        ("memory stats", 2, None),
        ("xinfo stream k", 2, Some(0)),
        ("xinfo help", 2, None),
        ("config get x", 2, None),
        ("function load x", 2, Some(0)),
        ("select 1", 2, None),
        ("select 2", 0, Some(1)),
        ("select x", 0, None),
        ("swapdb 0 1", 2, None),
        ("swapdb 0 2", 0, Some(2)),
        ("move a 1", 0, None),
        ("move a 2", 0, Some(2)),
        ("copy a b db 1 replace", 0, None),
        ("copy a b replace db 2", 0, Some(5)),
        ("copy db b", 0, None),
        ("flushall", 0, Some(0)),
        ("flushdb", 0, None),
    ] {
        let denied = check_in(&alike, line, db).err();
        assert_eq!(denied, at.map(|at| Denied { reason: Reason::Database, at }), "{line} in {db}");
    }
    let two = user("+@all ~* db=1 (db=2 +get ~x)");
    assert!(check_in(&two, "get x", 2).is_ok() && check_in(&two, "get y", 2).is_err());
    assert!(user("+@all ~* &* db=1 alldbs").is_unrestricted() && !alike.is_unrestricted());
}

#[test]
fn databases_are_written_as_they_are_read() {
    for (rules, text) in [
        ("db=2,0,1,1", "db=0,1,2 -@all"),
        ("db=0 db=7", "db=7 -@all"),
        ("db=0 resetdbs", "resetdbs -@all"),
        ("DB=01", "db=1 -@all"),
        ("db=0 alldbs", "-@all"),
    ] {
        let line = String::from_utf8(user(rules).line()).unwrap();
        assert_eq!(line, format!("user u off resetchannels {text}"), "{rules}");
    }
    for (rule, error) in [
        ("db=", super::RuleError::Syntax),
        ("db=x", super::RuleError::Syntax),
        ("db=1,,2", super::RuleError::Syntax),
        ("db=2,", super::RuleError::Syntax),
        ("db=*", super::RuleError::Syntax),
        ("db=-1", super::RuleError::NoSuchDatabase),
        ("db=99999999999999999999", super::RuleError::NoSuchDatabase),
    ] {
        let mut user = User::new("u", 7, false);
        assert_eq!(user.apply(rule.as_bytes(), false), Err(error), "{rule}");
    }
}

/// Rules, requests that they allow, requests that they refuse and for which argument.
type Case = (&'static str, &'static [&'static str], &'static [(&'static str, Reason, usize)]);

#[test]
fn a_request_needs_its_command_all_its_keys_and_all_its_channels() {
    let cases: &[Case] = &[
        (
            "+get ~a*",
            &["get a1", "auth x"],
            &[("set a 1", Reason::Command, 0), ("get b", Reason::Key, 1)],
        ),
        (
            "+@all ~a %R~r %W~w",
            &["copy r w", "get r", "set w 1", "exists r a w", "ping"],
            &[
                ("copy w r", Reason::Key, 1),
                ("copy r r", Reason::Key, 2),
                ("incr w", Reason::Key, 1),
                ("set w 1 get", Reason::Key, 1),
                ("mget a r x", Reason::Key, 3),
                ("exists x", Reason::Key, 1),
                ("zunionstore w 2 r w", Reason::Key, 4),
                ("sort a store r", Reason::Key, 3),
                ("publish c m", Reason::Channel, 1),
            ],
        ),
        (
            "+@all -@dangerous ~*",
            &["get a", "client id", "acl whoami", "config help"],
            &[
                ("config get x", Reason::Command, 0),
                ("client kill a:1", Reason::Command, 0),
                ("keys *", Reason::Command, 0),
                ("client nosuch", Reason::Command, 0),
            ],
        ),
        (
            "+config|get +select|0",
            &["config get a", "CONFIG GET a", "select 0"],
            &[
                ("config set a b", Reason::Command, 0),
                ("config nosuch", Reason::Command, 0),
                ("select 1", Reason::Command, 0),
            ],
        ),
        ("+config -config|set", &["config get a"], &[("config set a b", Reason::Command, 0)]),
        (
            "+@pubsub &news:* &all*",
            &[
                "subscribe news:a",
                "publish news:b m",
                "psubscribe all*",
                "ssubscribe news:a",
                "spublish news:a m",
                "sunsubscribe x",
            ],
            &[
                ("psubscribe news:a*", Reason::Channel, 1),
                ("subscribe news:a other", Reason::Channel, 2),
            ],
        ),
        (
            "+get ~a (+set ~b) (%R~c +@all)",
            &["get a", "set b 1", "get c"],
            &[("set a 1", Reason::Key, 1), ("get b", Reason::Key, 1), ("del c", Reason::Key, 1)],
        ),
    ];
    for (rules, allowed, refused) in cases {
        let user = user(rules);
        for line in *allowed {
            assert_eq!(check(&user, line), Ok(()), "{rules}: {line}");
        }
        for (line, reason, at) in *refused {
            let expected = Err(Denied { reason: *reason, at: *at });
            assert_eq!(check(&user, line), expected, "{rules}: {line}");
        }
    }
}

#[test]
fn rules_are_told_in_their_order_and_what_is_overridden_is_not() {
    for (rules, commands) in [
        ("+get", "-@all +get"),
        ("+@all -@dangerous +keys", "+@all -@dangerous +keys"),
        ("+get +set -get", "-@all +set -get"),
        ("+CONFIG|GET +@Read", "-@all +config|get +@read"),
        ("+config|get +config|set +config", "-@all +config"),
        ("+config -config|set", "-@all +config -config|set"),
        ("+get +@all", "+@all"),
        ("+@all nocommands +select|0", "-@all +select|0"),
        ("-@read +@read", "-@all +@read"),
    ] {
        assert_eq!(user(rules).root().commands_text(), commands, "{rules}");
    }
}

#[test]
fn a_users_words_make_the_same_user_again() {
    for rules in [
        "on >pw +@all ~* &*",
        "off nopass skip-sanitize-payload %R~a %W~b ~c %RW~d +get",
        "on &a &b* +@all -@admin (+get ~x) (%W~y allchannels +@write -del)",
    ] {
        let first = user(rules);
        let words: Vec<Vec<u8>> = first.words();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut again = User::new("u", 7, false);
        for rule in super::super::join_selectors(&words).unwrap() {
            again.apply(&rule, false).unwrap();
        }
        assert_eq!(again.words(), first.words(), "{rules}");
    }
}

#[test]
fn only_a_user_with_every_right_goes_unlooked_at() {
    assert!(user("+@all ~* &*").is_unrestricted());
    assert!(user("+get (+@all allkeys allchannels)").is_unrestricted());
    for rules in ["+@all ~*", "+@all &*", "~* &*", "+@all ~* &* -get", "+@all %RW~* &*"] {
        assert!(!user(rules).is_unrestricted(), "{rules}");
    }
}

#[test]
fn broken_rules_are_refused_and_change_nothing() {
    for rule in [
        "",
        "(",
        ")",
        "()(",
        "(~a (+get))",
        "+",
        "-",
        "+@",
        "%",
        "%~a",
        "%X~a",
        "%RR~a",
        "~a b",
        "&a\tb",
        "+get|",
        "+config|",
        "+config|get|x",
        "-select|0",
        "+nosuch",
        "+@nosuch",
        "#12",
        "!12",
        "<nosuch",
        "+|",
        "+|x",
        "%R",
        "foo",
        "+select|a b",
    ] {
        let mut user = user("on >pw ~k &c +get");
        let before = user.words();
        let result = user.apply(rule.as_bytes(), false);
        if result.is_ok() {
            assert!(matches!(rule, ""), "{rule:?} is taken");
        }
        assert_eq!(user.words(), before, "{rule:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_rule_panics(rules in proptest::collection::vec("[-+~%&()<>!#@|a-z*RW \\x00\\x80]{0,12}", 0..12)) {
        let words: Vec<&[u8]> = rules.iter().map(String::as_bytes).collect();
        if let Ok(rules) = super::super::join_selectors(&words) {
            let mut user = User::new("u", 7, false);
            for rule in rules {
                let _ = user.apply(&rule, false);
            }
            let words = user.words();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let mut again = User::new("u", 7, false);
            for rule in super::super::join_selectors(&words).unwrap() {
                proptest::prop_assert!(again.apply(&rule, false).is_ok(), "{:?}", rule);
            }
            proptest::prop_assert_eq!(again.words(), user.words());
        }
    }
}
