use super::*;
use serde_json::json;

/// What a spec wishes, or the sentence why it is refused.
fn of(spec: serde_json::Value) -> Result<Desired, String> {
    let cluster = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster",
        "metadata": {"name": "demo"}, "spec": spec,
    });
    Desired::of(&serde_json::from_value(cluster).unwrap()).map_err(|e| e.to_string())
}

fn desired(config: &[(&str, &str)]) -> Desired {
    let config: BTreeMap<_, _> = config.iter().copied().collect();
    of(json!({"shards": 1, "config": config})).unwrap()
}

#[test]
fn directive_taken_out_of_the_manifest_is_one_that_goes_back_to_its_default() {
    let with = desired(&[("notify-keyspace-events", "Ex"), ("slave-read-only", "no")]);
    let (said, unsaid): (Vec<_>, Vec<_>) =
        (with.unsaid().collect(), desired(&[]).unsaid().collect());
    for name in ["notify-keyspace-events", "replica-read-only"] {
        assert!(!said.contains(&name) && unsaid.contains(&name), "{name}");
    }
    // Never what the operator says elsewhere, or what takes a restart.
    for ours in ["requirepass", "masterauth", "maxmemory", "dir", "protected-mode", "databases"] {
        assert!(!unsaid.contains(&ours), "{ours}");
    }
    let ours = |name: &&&str| {
        let is_ours = name.starts_with("larder-") || name.starts_with("cluster-announce");
        is_ours && !OF_ABSENT_FIELDS.contains(name)
    };
    assert_eq!(unsaid.iter().find(ours), None);
}

#[test]
fn value_is_one_argument_in_a_file_unless_the_directive_takes_several() {
    let conf = desired(&[
        ("notify-keyspace-events", ""),
        ("pidfile", "/a folder/pid"),
        ("client-output-buffer-limit", "normal 0 0 0"),
        ("no-such", "a b"),
    ])
    .conf();
    for line in [
        "notify-keyspace-events \"\"\n",
        "pidfile \"/a folder/pid\"\n",
        "client-output-buffer-limit normal 0 0 0\n",
        "no-such a b\n",
        "save \"\"\n",
    ] {
        assert!(conf.contains(line), "{line}{conf}");
    }
}

#[test]
fn who_may_come_in_by_certificate_changes_without_a_restart() {
    let of = |tls: serde_json::Value| of(json!({"shards": 1, "tls": tls}));
    let given = |auth: &str| of(json!({"secretName": "mine", "clientAuth": auth})).unwrap();
    let (open, closed) = (given("None"), given("Required"));
    assert!(open.serves_tls() && !desired(&[]).serves_tls());
    assert_eq!(open.at_start_hash(), closed.at_start_hash());
    assert!(closed.live().any(|pair| pair == ("tls-auth-clients", "yes")));
    let refused = of(json!({"clientAuth": "Required"})).unwrap_err();
    assert!(refused.starts_with("spec.tls.clientAuth: needs secretName"), "{refused}");
    let refused = of(json!({"secretName": "demo-tls"})).unwrap_err();
    assert!(refused.starts_with("spec.tls.secretName: is the name"), "{refused}");
    // What is set by Larder does not go back to its default because the manifest does not say it.
    assert!(!closed.unsaid().any(|name| name.starts_with("tls-") && is_ours(name)));
}

/// With this value a field is the directive, with that one it is refused; without it the directive is at its default.
fn is_live_and_goes_back(field: &str, name: &str, good: (&str, &str), bad: &str) {
    let with = |value: &str| {
        let (outer, inner) = field.split_once('.').unwrap_or((field, ""));
        let value = if inner.is_empty() { json!(value) } else { json!({ inner: value }) };
        of(json!({"shards": 1, outer: value}))
    };
    let given = with(good.0).unwrap();
    assert!(given.live().any(|pair| pair == (name, good.1)));
    assert!(!given.unsaid().any(|n| n == name));
    let without = of(json!({"shards": 1})).unwrap();
    assert!(without.unsaid().any(|n| n == name));
    assert!(without.live().all(|(n, _)| n != name));
    let refused = with(bad).unwrap_err();
    assert!(refused.contains(&format!("spec.{field}: must be between")), "{refused}");
}

#[test]
fn a_bound_of_staleness_is_live_and_goes_back_when_it_is_taken_out() {
    is_live_and_goes_back("maxStaleness", "larder-max-staleness-ms", ("1s500ms", "1500"), "1ms");
}

#[test]
fn a_bound_of_what_moves_cost_is_live_and_goes_back_when_it_is_taken_out() {
    is_live_and_goes_back("balance.maxMoveLatency", "larder-move-p99-ms", ("20ms", "20"), "11s");
}

#[test]
fn a_rollout_is_given_time_in_bounds() {
    let of = |rollout: serde_json::Value| {
        of(json!({"shards": 1, "rollout": rollout})).map(|d| d.rollout)
    };
    assert_eq!(of(json!({})), Ok(Rollout::default()));
    let given = of(json!({"canaryPause": "5m", "readyWithin": "1h"}));
    let expected = Rollout { canary_pause: 300, ready_within: 3600, ..Rollout::default() };
    assert_eq!(given, Ok(expected));
    let given = of(json!({"canaryPause": "1m", "maxErrorRate": "0.5%", "maxLag": "1Mi"})).unwrap();
    assert_eq!((given.max_error_rate, given.max_lag), (Some(50), Some(1 << 20)));
    for (field, value, why) in [
        ("maxErrorRate", "101%", "must be a share from 0% to 100%"),
        ("maxErrorRate", "1", "must be a share from 0% to 100%"),
        ("maxLag", "much", "must be a quantity"),
    ] {
        let refused = of(json!({"canaryPause": "1m", field: value})).unwrap_err();
        assert!(refused.starts_with(&format!("spec.rollout.{field}: {why}")), "{refused}");
    }
    let refused = of(json!({"maxLag": "1Mi"})).unwrap_err();
    assert!(refused.starts_with("spec.rollout.maxLag: needs canaryPause"), "{refused}");
    let refused = of(json!({"canaryPause": "25h"})).unwrap_err();
    assert!(refused.starts_with("spec.rollout.canaryPause: must be between"), "{refused}");
    let refused = of(json!({"readyWithin": "1s"})).unwrap_err();
    assert!(refused.starts_with("spec.rollout.readyWithin: must be between"), "{refused}");
}

#[test]
fn balance_names_a_time_of_the_day_or_waits_to_be_asked() {
    let of = |balance: serde_json::Value| {
        of(json!({"shards": 1, "balance": balance})).map(|d| d.balance)
    };
    assert_eq!(of(json!({})), Ok(Balance::default()));
    let window = |start: &str, duration: &str| json!({"start": start, "duration": duration});
    let night = of(json!({"window": window("02:30", "1h"), "request": "now"})).unwrap();
    assert_eq!(night.window, Window::new("02:30", 3_600_000));
    assert_eq!((night.automatic, night.request.as_deref()), (true, Some("now")));
    assert!(!of(json!({"primaries": "Manual"})).unwrap().automatic);
    for (balance, why) in [
        (json!({"window": window("25:00", "1h")}), "spec.balance.window.start: must be a time"),
        (json!({"window": window("02:30", "1s")}), "spec.balance.window.duration: must be"),
        (
            json!({"primaries": "Manual", "window": window("02:30", "1h")}),
            "spec.balance.window: needs primaries: Automatic",
        ),
    ] {
        let refused = of(balance).unwrap_err();
        assert!(refused.starts_with(why), "{refused}");
    }
}

#[test]
fn memcached_clients_are_served_where_they_are_wished() {
    let of = |shards: u16, memcached: serde_json::Value| {
        of(json!({"shards": shards, "memcached": memcached}))
    };
    let on = of(1, json!({"enabled": true, "flush": false})).unwrap();
    assert!(on.serves_memcached() && on.conf().contains("memcached-flush no\n"));
    assert!(!of(1, json!({"enabled": false})).unwrap().serves_memcached());
    assert!(of(2, json!({"enabled": true})).unwrap().serves_memcached());
    let refused = of(1, json!({"enabled": true, "itemSizeMax": "2Gi"})).unwrap_err();
    assert!(refused.contains("between 1Ki and 1Gi"), "{refused}");
}

#[test]
fn config_that_the_engine_would_refuse_is_refused_by_name() {
    let check = |name: &str, value: &str| {
        let spec = json!({"shards": 1, "config": {name: value}});
        check_config(&serde_json::from_value(spec).unwrap()).map_err(|e| e.to_string())
    };
    assert_eq!(check("maxmemory-samples", "10"), Ok(()));
    assert_eq!(check("client-output-buffer-limit", "normal 0 0 0"), Ok(()));
    assert_eq!(
        check("no-such", "1"),
        Err("spec.config.no-such: is not a directive of the engine".into())
    );
    assert!(check("maxmemory-samples", "many").unwrap_err().starts_with("spec.config.maxm"));
}

#[test]
fn a_seat_is_read_from_its_one_name() {
    let data = Seat::Data { shard: 12, index: 1 };
    assert_eq!(data.name("demo"), "demo-12-1");
    assert_eq!(Seat::parse("demo", "demo-12-1"), Some(data));
    assert_eq!(Seat::parse("demo", "demo-w-0"), Some(Seat::Witness { index: 0 }));
    assert_eq!(Seat::parse("a-1", "a-1-0-2"), Some(Seat::Data { shard: 0, index: 2 }));
    for stranger in ["demo-012-1", "demo-1", "demo", "other-1-1", "demo-1-1-1", "demo-+1-1"] {
        assert_eq!(Seat::parse("demo", stranger), None, "{stranger}");
    }
}
