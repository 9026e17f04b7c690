//! DEBUG DIGEST and DIGEST-VALUE: SHA-1 sums of data, the same as Redis makes of the same data.
//!
//! What has no order (keys, members, fields) is summed up by XOR, so that any order gives the same; what has one is mixed
//! in, each sum being hashed again. `redis-cli --cluster fix` compares values of two servers by it.

use sha1::{Digest as _, Sha1};

use super::{Ctx, Effects};
use crate::keyspace::{Entry, ValueRef};
use crate::script::format::general;
use crate::topology::SLOTS;
use crate::types::{CollectionRef, Digits, StreamId};

/// Time of a field that has none.
const NEVER: i64 = i64::MAX;

#[derive(Clone, Copy, Default)]
struct Sum([u8; 20]);

impl Sum {
    fn xor(&mut self, bytes: &[u8]) {
        let other = Sha1::digest(bytes);
        self.0.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn text(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Mixes the value in, and that it expires.
fn add_value(sum: &mut Sum, entry: &Entry) {
    let kind: u32 = match entry.value() {
        ValueRef::String(_) => 0,
        ValueRef::Collection(CollectionRef::List(_)) => 1,
        ValueRef::Collection(CollectionRef::Set(_)) => 2,
        ValueRef::Collection(CollectionRef::ZSet(_)) => 3,
        ValueRef::Collection(CollectionRef::Hash(_)) => 4,
        ValueRef::Collection(CollectionRef::Stream(_)) => 6,
    };
    sum.mix(&kind.to_be_bytes());
    let mut digits = Digits::new();
    match entry.value() {
        ValueRef::String(value) => sum.mix(value),
        ValueRef::Collection(CollectionRef::List(list)) => {
            list.iter().for_each(|item| sum.mix(item.bytes(&mut digits)));
        }
        ValueRef::Collection(CollectionRef::Set(set)) => {
            set.iter().for_each(|item| sum.xor(item.bytes(&mut digits)));
        }
        ValueRef::Collection(CollectionRef::ZSet(zset)) => zset.iter().for_each(|(item, score)| {
            let mut one = Sum::default();
            one.mix(item.bytes(&mut digits));
            one.mix(general(score, 17).as_bytes());
            sum.xor(&one.0);
        }),
        ValueRef::Collection(CollectionRef::Hash(hash)) => {
            for (field, value, time) in hash.iter_timed() {
                let mut one = Sum::default();
                one.mix(field.bytes(&mut digits));
                one.mix(value.bytes(&mut digits));
                if time != NEVER {
                    one.xor(b"!!hexpire!!");
                }
                sum.xor(&one.0);
            }
        }
        ValueRef::Collection(CollectionRef::Stream(stream)) => {
            for entry in stream.log().range(StreamId::MIN, StreamId::MAX, false) {
                sum.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                for (field, value) in entry.fields() {
                    sum.mix(field.bytes(&mut digits));
                    sum.mix(value.bytes(&mut digits));
                }
            }
        }
    }
    if entry.ttl().is_some() {
        sum.xor(b"!!expire!!");
    }
}

/// `DEBUG DIGEST`: of everything, at one moment.
pub(super) fn digest(ctx: &mut Ctx<'_, '_>) {
    if !ctx.db.locked().holds_all() {
        ctx.effects = Effects::Again;
        return;
    }
    let now = ctx.db.now_ms();
    let mut all = Sum::default();
    for db in 0..ctx.shared.keyspace.databases() {
        if !ctx.shared.keyspace.is_made(db) {
            continue;
        }
        let (mut sum, mut is_empty) = (all, true);
        sum.mix(&u32::from(db).to_be_bytes());
        for slot in 0..SLOTS {
            ctx.db.locked().table(db, slot).each(|entry| {
                if entry.ttl().is_some_and(|at| at <= now) {
                    return;
                }
                let mut one = Sum::default();
                one.mix(entry.key());
                add_value(&mut one, entry);
                sum.xor(&one.0);
                is_empty = false;
            });
        }
        if !is_empty {
            all = sum;
        }
    }
    ctx.reply.simple(&all.text());
}

/// `DEBUG DIGEST-VALUE key ...`: of values without their keys, whoever owns their slots.
pub(super) fn digest_values(ctx: &mut Ctx<'_, '_>) {
    if !ctx.db.locked().holds_all() {
        ctx.effects = Effects::Again;
        return;
    }
    ctx.reply.array(ctx.args.len() - 2);
    for key in &ctx.args[2..] {
        let mut sum = Sum::default();
        if let Some(entry) = ctx.db.peek(key) {
            add_value(&mut sum, entry);
        }
        ctx.reply.simple(&sum.text());
    }
}
