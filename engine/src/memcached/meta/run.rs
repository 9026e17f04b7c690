//! The meta commands run and answered.

use super::{Flags, Key};
use crate::keyspace::Item;
use crate::memcached::answer::{line, number};
use crate::memcached::client::Client;
use crate::memcached::ops::{
    Count1, Counted, Delete, Deleted, Expire, Get, Mode, Refusal, Seen, Store, Stored, left_s,
};
use crate::memcached::plain::NOT_A_NUMBER;
use crate::memcached::text::TOO_LARGE;
use crate::memcached::{ITEM_OVERHEAD, base64, stats};

/// A key as a reply shows it, in the form in which it was asked for.
fn show_key(out: &mut Vec<u8>, key: &Key<'_>) {
    out.extend_from_slice(b" k");
    if key.is_binary() {
        base64::encode(out, key.bytes());
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key.bytes());
    }
}

/// The flags that a reply shows, in the order in which they were asked for: the key and the client's own word here, what is
/// known of an item by `rest`.
fn show(
    out: &mut Vec<u8>,
    key: &Key<'_>,
    flags: &Flags<'_>,
    mut rest: impl FnMut(&mut Vec<u8>, u8),
) {
    for letter in &flags.shown {
        match letter {
            b'k' => show_key(out, key),
            b'O' => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(flags.opaque);
            }
            other => rest(out, *other),
        }
    }
}

fn figure(out: &mut Vec<u8>, letter: u8, value: impl itoa::Integer) {
    out.extend_from_slice(&[b' ', letter]);
    number(out, value);
}

fn answer(client: &mut Client<'_, '_>, code: &str, key: &Key<'_>, flags: &Flags<'_>) {
    client.reply.out.extend_from_slice(code.as_bytes());
    show(&mut client.reply.out, key, flags, |_, _| {});
    client.reply.out.extend_from_slice(b"\r\n");
}

pub(in crate::memcached) fn get(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
) -> Result<(), Refusal> {
    let now_ms = client.now_ms();
    let how = Get {
        cas: flags.has_cas_shown || flags.cas.is_some(),
        expire: flags.ttl.map(|t| Expire::of(t, now_ms)),
        recache_s: flags.recache,
        leases: true,
    };
    // Another client may make the item between the look and the making: it is then looked at again.
    for _ in 0..3 {
        if client.get(key.bytes(), how, |out, seen| show_item(out, key, flags, seen, false))? {
            return Ok(());
        }
        let Some(exptime) = flags.vivify else { break };
        let mut store = Store::new(key.bytes(), &[], Mode::Add);
        store.expire = Expire::of(exptime, now_ms);
        store.state = Item::TOKEN_SENT;
        store.new_cas = flags.new_cas;
        store.want_cas = flags.has_cas_shown;
        let Stored::Stored(cas) = client.store(&store)? else { continue };
        let ttl = if let Expire::At(at) = store.expire { Some(at) } else { None };
        let item = Item { flags: 0, state: 0, cas };
        let (value, fetched, idle_s) = (&b""[..], false, 0);
        let seen = Seen { value, item, ttl, fetched, idle_s, now_ms, won: true };
        show_item(&mut client.reply.out, key, flags, &seen, true);
        return Ok(());
    }
    if !flags.quiet {
        answer(client, "EN", key, flags);
    }
    Ok(())
}

fn show_item(out: &mut Vec<u8>, key: &Key<'_>, flags: &Flags<'_>, seen: &Seen<'_>, is_made: bool) {
    let known = !is_made && flags.cas.is_some_and(|cas| cas == seen.item.cas);
    let with_value = flags.value && !known;
    if with_value {
        out.extend_from_slice(b"VA ");
        number(out, seen.value.len());
    } else {
        out.extend_from_slice(b"HD");
    }
    show(out, key, flags, |out, letter| match letter {
        b's' => figure(out, letter, seen.value.len()),
        b't' => figure(out, letter, seen.left_s()),
        b'c' => figure(out, letter, seen.item.cas),
        b'f' => figure(out, letter, seen.item.flags),
        b'h' => figure(out, letter, u8::from(seen.fetched)),
        _ => figure(out, letter, seen.idle_s),
    });
    for (set, mark) in [
        (seen.item.state & Item::TOKEN_SENT != 0, b" Z"),
        (seen.item.state & Item::STALE != 0, b" X"),
        (seen.won, b" W"),
    ] {
        if set {
            out.extend_from_slice(mark);
        }
    }
    out.extend_from_slice(b"\r\n");
    if with_value {
        out.extend_from_slice(seen.value);
        out.extend_from_slice(b"\r\n");
    }
}

pub(in crate::memcached) fn set(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
    mut store: Store<'_>,
) -> Result<(), Refusal> {
    let now_ms = client.now_ms();
    store.flags = flags.client_flags.unwrap_or(0);
    store.expire = Expire::of(flags.ttl.unwrap_or(0), now_ms);
    store.new_cas = flags.new_cas;
    store.invalidate = flags.invalidate;
    store.vivify = flags.vivify.map(|v| Expire::of(v, now_ms));
    store.want_cas = flags.has_cas_shown;
    let bytes = store.value.len();
    let (code, cas) = match client.store(&store)? {
        Stored::Stored(_) if flags.quiet => return Ok(()),
        Stored::Stored(cas) => ("HD", cas),
        Stored::NotStored => ("NS", 0),
        Stored::Exists => ("EX", 0),
        Stored::NotFound => ("NF", 0),
        Stored::TooLarge => {
            line(client, TOO_LARGE);
            return Ok(());
        }
    };
    let out = &mut client.reply.out;
    out.extend_from_slice(code.as_bytes());
    show(out, key, flags, |out, letter| match letter {
        b'c' => figure(out, letter, cas),
        b's' => figure(out, letter, bytes),
        _ => {}
    });
    out.extend_from_slice(b"\r\n");
    Ok(())
}

pub(in crate::memcached) fn delete(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
) -> Result<(), Refusal> {
    let how = Delete {
        cas: flags.cas,
        invalidate: flags.invalidate,
        value_only: flags.value_only,
        expire: flags.ttl.map(|t| Expire::of(t, client.now_ms())),
        new_cas: flags.new_cas,
    };
    let done = client.delete(key.bytes(), how)?;
    if flags.quiet && done != Deleted::Exists {
        return Ok(());
    }
    let code = match done {
        Deleted::Deleted => "HD",
        Deleted::NotFound => "NF",
        Deleted::Exists => "EX",
    };
    answer(client, code, key, flags);
    Ok(())
}

pub(in crate::memcached) fn count(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
    flags: &Flags<'_>,
    down: bool,
) -> Result<(), Refusal> {
    let now_ms = client.now_ms();
    let initial = flags.vivify.map(|n| (flags.initial.unwrap_or(0), Expire::of(n, now_ms)));
    let count = Count1 {
        key: key.bytes(),
        down,
        delta: flags.delta.unwrap_or(1),
        initial,
        cas: flags.cas,
        new_cas: flags.new_cas,
        expire: flags.ttl.map(|t| Expire::of(t, now_ms)),
        want_cas: flags.has_cas_shown,
    };
    let (value, cas, ttl) = match client.add(&count)? {
        Counted::Number { .. } if flags.quiet => return Ok(()),
        Counted::NotFound if flags.quiet => return Ok(()),
        Counted::Number { value, cas, ttl } => (value, cas, ttl),
        Counted::NotFound => {
            answer(client, "NF", key, flags);
            return Ok(());
        }
        Counted::Exists => {
            answer(client, "EX", key, flags);
            return Ok(());
        }
        Counted::NotANumber => {
            line(client, NOT_A_NUMBER);
            return Ok(());
        }
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    let out = &mut client.reply.out;
    if flags.value {
        out.extend_from_slice(b"VA ");
        number(out, digits.len());
    } else {
        out.extend_from_slice(b"HD");
    }
    show(out, key, flags, |out, letter| match letter {
        b't' => figure(out, letter, left_s(ttl, now_ms)),
        b'c' => figure(out, letter, cas),
        _ => {}
    });
    out.extend_from_slice(b"\r\n");
    if flags.value {
        out.extend_from_slice(digits);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

pub(in crate::memcached) fn debug(
    client: &mut Client<'_, '_>,
    key: &Key<'_>,
) -> Result<(), Refusal> {
    let how = Get { cas: true, ..Get::default() };
    let shown = client.get(key.bytes(), how, |out, seen| {
        let mut text = String::from("ME ");
        match key.is_binary() {
            true => text.push_str(&String::from_utf8_lossy(key.written)),
            false => stats::uri_encode(&mut text, key.bytes()),
        }
        let (exp, la, cas) = (seen.left_s(), seen.idle_s, seen.item.cas);
        let fetch = if seen.fetched { "yes" } else { "no" };
        let size = key.bytes().len() + seen.value.len() + ITEM_OVERHEAD;
        text.push_str(&format!(" exp={exp} la={la} cas={cas} fetch={fetch} cls=1 size={size}\r\n"));
        out.extend_from_slice(text.as_bytes());
    })?;
    if !shown {
        line(client, "EN");
    }
    Ok(())
}
