//! The commands of the binary protocol run and answered.

use super::{
    AUTH_ERROR, EXISTS, INVALID, NOT_A_NUMBER, NOT_FOUND, NOT_STORED, OK, Packet, Quiet, TOO_LARGE,
    UNKNOWN, be32, be64, error, respond, shape, text, write,
};
use crate::memcached::client::Client;
use crate::memcached::ops::{
    Count1, Counted, Delete, Deleted, Expire, Get, Mode, Refusal, Store, Stored,
};
use crate::memcached::stats::{self, Count};
use crate::memcached::{VERSION, auth};

/// An exptime that says: do not make the number.
const NOT_TO_BE_MADE: u32 = u32::MAX;

/// `false`: the connection ends.
pub(super) fn run(
    client: &mut Client<'_, '_>,
    sasl: &mut Quiet,
    packet: &Packet<'_>,
    command: u8,
    quiet: bool,
) -> Result<bool, Refusal> {
    if matches!(command, 0x20..=0x22) {
        authenticate(client, sasl, packet);
        return Ok(true);
    }
    if !client.session.authenticated && !matches!(command, 0x07 | 0x0b) {
        error(client, packet, AUTH_ERROR);
        return Ok(true);
    }
    if command == 0x10 {
        statistics(client, packet);
        return Ok(true);
    }
    let Some((extras, has_key, may_have_value)) = shape(command) else {
        error(client, packet, UNKNOWN);
        return Ok(true);
    };
    if !extras.contains(&packet.extras.len())
        || packet.key.is_empty() == has_key
        || (!may_have_value && !packet.value.is_empty())
    {
        error(client, packet, INVALID);
        return Ok(false);
    }
    match command {
        0x00 | 0x0c | 0x1c | 0x1d | 0x23 => get(client, packet, command, quiet)?,
        0x01..=0x03 | 0x0e | 0x0f => store(client, packet, command, quiet)?,
        0x04 => {
            let cas = (packet.cas != 0).then_some(packet.cas);
            match client.delete(packet.key, Delete { cas, ..Delete::default() })? {
                Deleted::Deleted if quiet => {}
                Deleted::Deleted => respond(client, packet, OK, 0, &[], &[], &[]),
                Deleted::NotFound => error(client, packet, NOT_FOUND),
                Deleted::Exists => error(client, packet, EXISTS),
            }
        }
        0x05 | 0x06 => count(client, packet, command == 0x06, quiet)?,
        0x07 => {
            if !quiet {
                respond(client, packet, OK, 0, &[], &[], &[]);
            }
            return Ok(false);
        }
        0x08 => {
            if client.executor.shared.config.is_yes("memcached-flush") {
                client.flush(i64::from(be32(packet.extras) as i32))?;
                if !quiet {
                    respond(client, packet, OK, 0, &[], &[], &[]);
                }
            } else {
                error(client, packet, AUTH_ERROR);
            }
        }
        0x0b => respond(client, packet, OK, 0, &[], &[], VERSION.as_bytes()),
        _ => respond(client, packet, OK, 0, &[], &[], &[]),
    }
    Ok(true)
}

fn get(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    command: u8,
    quiet: bool,
) -> Result<(), Refusal> {
    let touches = matches!(command, 0x1c | 0x1d | 0x23);
    let with_key = matches!(command, 0x0c | 0x23);
    let expire =
        touches.then(|| Expire::of(i64::from(be32(packet.extras) as i32), client.now_ms()));
    let key = if with_key { packet.key } else { &[] };
    let how = Get { cas: true, expire, ..Get::default() };
    let found = client.get(packet.key, how, |out, seen| {
        let value = if command == 0x1c { &[] } else { seen.value };
        write(out, packet, OK, seen.item.cas, &seen.item.flags.to_be_bytes(), key, value);
    })?;
    if !found && !quiet {
        let value = if with_key { "" } else { text(NOT_FOUND) };
        respond(client, packet, NOT_FOUND, 0, &[], key, value.as_bytes());
    }
    Ok(())
}

fn store(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    command: u8,
    quiet: bool,
) -> Result<(), Refusal> {
    let mode = match command {
        0x01 => Mode::Set,
        0x02 => Mode::Add,
        0x03 => Mode::Replace,
        0x0e => Mode::Append,
        _ => Mode::Prepend,
    };
    let mut store = Store::new(packet.key, packet.value, mode);
    if packet.extras.len() == 8 {
        store.flags = be32(packet.extras);
        store.expire = Expire::of(i64::from(be32(&packet.extras[4..]) as i32), client.now_ms());
    }
    store.cas = (packet.cas != 0).then_some(packet.cas);
    store.want_cas = true;
    match client.store(&store)? {
        Stored::Stored(_) if quiet => {}
        Stored::Stored(cas) => respond(client, packet, OK, cas, &[], &[], &[]),
        Stored::NotStored if mode == Mode::Add => error(client, packet, EXISTS),
        Stored::NotStored if mode == Mode::Replace => error(client, packet, NOT_FOUND),
        Stored::NotStored => error(client, packet, NOT_STORED),
        Stored::Exists => error(client, packet, EXISTS),
        Stored::NotFound => error(client, packet, NOT_FOUND),
        Stored::TooLarge => error(client, packet, TOO_LARGE),
    }
    Ok(())
}

fn count(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    down: bool,
    quiet: bool,
) -> Result<(), Refusal> {
    let exptime = be32(&packet.extras[16..]);
    let initial = (exptime != NOT_TO_BE_MADE).then(|| {
        (be64(&packet.extras[8..]), Expire::of(i64::from(exptime as i32), client.now_ms()))
    });
    let count = Count1 {
        key: packet.key,
        down,
        delta: be64(packet.extras),
        initial,
        cas: (packet.cas != 0).then_some(packet.cas),
        new_cas: None,
        expire: None,
        want_cas: true,
    };
    match client.add(&count)? {
        Counted::Number { .. } if quiet => {}
        Counted::Number { value, cas, .. } => {
            respond(client, packet, OK, cas, &[], &[], &value.to_be_bytes());
        }
        Counted::NotFound => error(client, packet, NOT_FOUND),
        Counted::Exists => error(client, packet, EXISTS),
        Counted::NotANumber => error(client, packet, NOT_A_NUMBER),
    }
    Ok(())
}

/// One packet a line, and one without a key at the end.
fn statistics(client: &mut Client<'_, '_>, packet: &Packet<'_>) {
    let shared = client.executor.shared;
    let words = crate::memcached::text::words(packet.key);
    let lines = match words.as_slice() {
        [b"reset"] => {
            shared.memcached.reset();
            Some(stats::Lines::new())
        }
        [b"detail", b"dump" | b"off"] => Some(stats::Lines::new()),
        words => stats::group(shared, words, client.now_ms()),
    };
    let Some(lines) = lines else { return error(client, packet, NOT_FOUND) };
    for (name, value) in &lines {
        respond(client, packet, OK, 0, &[], name.as_bytes(), value.as_bytes());
    }
    respond(client, packet, OK, 0, &[], &[], &[]);
}

/// SASL: the one mechanism is PLAIN, which is over after one step.
fn authenticate(client: &mut Client<'_, '_>, sasl: &mut Quiet, packet: &Packet<'_>) {
    let shared = client.executor.shared;
    if shared.memcached.is_open(&shared.acl) {
        // As a memcached that was started without -S.
        return error(client, packet, UNKNOWN);
    }
    if packet.opcode == 0x20 {
        return respond(client, packet, OK, 0, &[], &[], b"PLAIN");
    }
    sasl.steps = sasl.steps.saturating_add(1);
    let token = (packet.opcode == 0x21 && packet.key == b"PLAIN")
        .then(|| auth::sasl_plain(packet.value))
        .flatten();
    match token {
        Some((name, password)) if auth::log_in(client, name, password) => {
            respond(client, packet, OK, 0, &[], &[], b"Authenticated");
        }
        Some(_) => error(client, packet, AUTH_ERROR),
        None => {
            client.count(Count::AuthCmds);
            client.count(Count::AuthErrors);
            error(client, packet, AUTH_ERROR);
        }
    }
}
