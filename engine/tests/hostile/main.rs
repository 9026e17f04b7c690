//! What clients may send to do harm: a real server must answer or close, go on for others, and stay up.
//!
//! Protocol framing has its own tables in `wire`; here are the commands.

#![expect(clippy::disallowed_methods, reason = "answer times are what is measured")]

mod aside;
mod ends;
mod heavy;
mod random;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{Client, Value};

/// A heavy command may take this long in a debug build on a busy machine; what runs away takes hours.
const BOUNDED: Duration = Duration::from_secs(15);

/// Runs one command and fails when it takes longer than anything bounded would.
fn bounded<A: AsRef<[u8]>>(client: &mut Client, what: &str, args: &[A]) -> Value {
    let begin = Instant::now();
    let reply = client.command(args);
    let took = begin.elapsed();
    assert!(took < BOUNDED, "{what} took {took:?}");
    reply
}

/// Sends many requests ahead of their replies, which must all be `expected`.
fn pipelined(client: &mut Client, requests: impl Iterator<Item = Vec<u8>>, is: fn(&Value) -> bool) {
    let mut waiting = 0;
    let mut batch = Vec::new();
    let take = |client: &mut Client, n: usize| {
        for _ in 0..n {
            let reply = client.reply().unwrap();
            assert!(is(&reply), "{reply}");
        }
    };
    for request in requests {
        batch.extend(request);
        waiting += 1;
        if waiting == 500 {
            client.send_raw(&std::mem::take(&mut batch));
            take(client, waiting);
            waiting = 0;
        }
    }
    client.send_raw(&batch);
    take(client, waiting);
}

fn is_ok(value: &Value) -> bool {
    *value == Value::Simple(b"OK".to_vec())
}

fn is_int(value: &Value) -> bool {
    matches!(value, Value::Int(_))
}
