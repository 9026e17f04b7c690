//! What the server writes down of its commands: counts, slow and large ones, latencies.

use crate::figure;
use crate::support::{Server, Value, value::text};

#[test]
fn hits_misses_and_commands_are_counted_exactly() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.words("SET k v");
    let before = [figure(&mut client, "keyspace_hits"), figure(&mut client, "keyspace_misses")];
    for _ in 0..30 {
        client.words("GET k");
    }
    for _ in 0..10 {
        client.words("GET none");
    }
    assert_eq!(figure(&mut client, "keyspace_hits"), before[0] + 30);
    assert_eq!(figure(&mut client, "keyspace_misses"), before[1] + 10);
    assert_eq!(figure(&mut client, "connected_clients"), 1);
    assert!(figure(&mut client, "used_memory_peak") >= figure(&mut client, "used_memory"));
}

#[test]
fn slow_commands_are_listed_and_quick_ones_are_not() {
    let server = Server::larder(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    assert_eq!(text(&client.words("CONFIG SET slowlog-log-slower-than 20000")), "OK");
    client.words("SET quick 1");
    client.words("DEBUG SLEEP 0.05");
    let Value::Array(entries) = client.words("SLOWLOG GET 10") else { panic!("no list") };
    let first_words: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            Value::Array(parts) => match &parts[3] {
                Value::Array(args) => text(&args[0]),
                other => panic!("no arguments: {other:?}"),
            },
            other => panic!("no entry: {other:?}"),
        })
        .collect();
    assert!(first_words.iter().any(|w| w == "DEBUG"), "{first_words:?}");
    assert!(first_words.iter().all(|w| w != "SET"), "{first_words:?}");
    assert_eq!(text(&client.words("SLOWLOG RESET")), "OK");
    assert_eq!(text(&client.words("CONFIG SET slowlog-log-slower-than 0")), "OK");
    client.words("SET quick 1");
    assert_ne!(text(&client.words("SLOWLOG LEN")), "0");
}

#[test]
fn large_requests_and_replies_are_written_down_with_their_bytes() {
    let server = Server::larder(&[
        "--commandlog-request-larger-than",
        "1000",
        "--commandlog-reply-larger-than",
        "2000",
        "--commandlog-large-reply-max-len",
        "2",
    ]);
    let mut client = server.connect();
    client.words(&format!("SET small {}", "v".repeat(900)));
    client.words(&format!("SET large {}", "v".repeat(3000)));
    for _ in 0..3 {
        client.words("GET large");
    }
    client.words("GET small");
    assert_eq!(text(&client.words("COMMANDLOG LEN large-request")), "1");
    assert_eq!(text(&client.words("COMMANDLOG LEN large-reply")), "2");
    let Value::Array(entries) = client.words("COMMANDLOG GET -1 large-request") else { panic!() };
    let fields = entries[0].clone().items();
    assert_eq!(text(&fields[2]), "3033");
    assert_eq!(fields[3].clone().items().len(), 3);
    let Value::Array(entries) = client.words("COMMANDLOG GET 1 large-reply") else { panic!() };
    let fields = entries[0].clone().items();
    assert_eq!((text(&fields[0]), text(&fields[2])), ("2".into(), "3009".into()));
    assert_eq!(text(&client.words("COMMANDLOG RESET large-reply")), "OK");
    assert_eq!(text(&client.words("COMMANDLOG LEN large-reply")), "0");
    let refused = text(&client.words("COMMANDLOG LEN other"));
    let known = "ERR type should be one of the following: slow, large-request, large-reply";
    assert_eq!(refused, known);
    assert_eq!(text(&client.words("COMMANDLOG LEN slow")), text(&client.words("SLOWLOG LEN")));
}

#[test]
fn spikes_are_recorded_above_the_threshold_and_times_of_commands_are_counted() {
    let server = Server::larder(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.words("DEBUG SLEEP 0.02");
    assert_eq!(client.words("LATENCY LATEST"), Value::Array(vec![]));
    assert!(text(&client.words("LATENCY DOCTOR")).contains("latency-monitor-threshold"));
    client.words("CONFIG SET latency-monitor-threshold 10");
    client.words("DEBUG SLEEP 0.02");
    let latest = client.words("LATENCY LATEST").items();
    let event = latest[0].clone().items();
    assert_eq!(text(&event[0]), "command");
    assert!(text(&event[3]).parse::<u64>().unwrap() >= 20);
    assert_eq!(client.words("LATENCY HISTORY command").items().len(), 1);
    assert_eq!(client.words("LATENCY HISTORY other").items().len(), 0);
    assert!(text(&client.words("LATENCY DOCTOR")).contains("command: 1 seconds"));
    assert_eq!(text(&client.words("LATENCY RESET other")), "0");
    assert_eq!(text(&client.words("LATENCY RESET")), "1");
    let counted = client.words("LATENCY HISTOGRAM debug nosuch").items();
    assert_eq!(text(&counted[0]), "debug");
    let fields = counted[1].clone().items();
    assert_eq!((text(&fields[0]), text(&fields[1])), ("calls".into(), "2".into()));
    assert!(
        text(&client.words("INFO latencystats")).contains("latency_percentiles_usec_debug:p50=")
    );
    (0..3).for_each(|_| drop(client.words("SET k v")));
    let counted = client.words("LATENCY HISTOGRAM set").items()[1].clone().items();
    assert_eq!(text(&counted[1]), "3");
    assert_eq!(text(counted[3].clone().items().last().unwrap()), "3");
    client.words("CONFIG RESETSTAT");
    assert!(client.words("LATENCY HISTOGRAM debug").items().is_empty());
}
