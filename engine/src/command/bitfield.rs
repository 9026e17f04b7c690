//! BITFIELD: integers of any width at any bit of a value.

use super::strings::value_bytes_max;
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::WrongType;
use crate::number::parse_i64;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("bitfield", -2, flag::WRITE | flag::DENYOOM, Keys::FIRST, Group::String, "3.2.0", "Reads and changes integers inside a value.", bitfield),
    Command::new("bitfield_ro", -2, flag::READONLY | flag::FAST, Keys::FIRST, Group::String, "6.0.0", "Reads integers inside a value.", bitfield),
];

/// A width with or without sign.
#[derive(Clone, Copy)]
struct Kind {
    signed: bool,
    bits: u32,
}

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    Incr(i64),
}

/// One step of the command.
struct Step {
    kind: Kind,
    /// Where it begins, bits.
    at: usize,
    action: Action,
    overflow: Overflow,
}

impl Kind {
    fn parse(text: &[u8]) -> Option<Kind> {
        let signed = match text.first()? {
            b'i' => true,
            b'u' => false,
            _ => return None,
        };
        let bits = parse_i64(&text[1..])?;
        // The largest unsigned number would not fit a reply.
        let most = if signed { 64 } else { 63 };
        (1..=most).contains(&bits).then_some(Kind { signed, bits: bits as u32 })
    }

    fn range(self) -> (i128, i128) {
        if self.signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// The number as its bits hold it; the bits beyond the end of a value are zeros.
    fn read(self, value: &[u8], at: usize) -> i64 {
        let bit = |i: usize| value.get(i / 8).is_some_and(|byte| byte & (0x80 >> (i % 8)) != 0);
        let raw = (at..at + self.bits as usize).fold(0u64, |n, i| n << 1 | u64::from(bit(i)));
        let spare = 64 - self.bits;
        if self.signed { (raw << spare) as i64 >> spare } else { raw as i64 }
    }

    fn write(self, value: &mut [u8], at: usize, number: i64) {
        for (n, i) in (at..at + self.bits as usize).rev().enumerate() {
            let Some(byte) = value.get_mut(i / 8) else { continue };
            let mask = 0x80 >> (i % 8);
            *byte = if number >> n & 1 == 1 { *byte | mask } else { *byte & !mask };
        }
    }

    /// A number brought into range; nothing where it is out of range and that is to fail.
    fn fit(self, exact: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = self.range();
        if (min..=max).contains(&exact) {
            return Some(exact as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(if exact > max { max } else { min } as i64),
            Overflow::Wrap => {
                let spare = 64 - self.bits;
                let raw = (exact as u64) << spare;
                Some(if self.signed { raw as i64 >> spare } else { (raw >> spare) as i64 })
            }
        }
    }
}

impl Step {
    /// Runs on a value that is long enough for what is written; gives the reply, and whether it wrote.
    fn run(&self, value: &mut [u8]) -> (Option<i64>, bool) {
        let old = self.kind.read(value, self.at);
        let (exact, is_set) = match self.action {
            Action::Get => return (Some(old), false),
            Action::Set(to) if self.kind.signed => (i128::from(to), true),
            Action::Set(to) => (i128::from(to as u64), true),
            Action::Incr(by) => (i128::from(old) + i128::from(by), false),
        };
        match self.kind.fit(exact, self.overflow) {
            None => (None, false),
            Some(new) => {
                self.kind.write(value, self.at, new);
                (Some(if is_set { old } else { new }), true)
            }
        }
    }

    fn end_byte(&self) -> usize {
        (self.at + self.kind.bits as usize).div_ceil(8)
    }
}

/// The steps of the arguments; the error is already replied when there are none.
fn steps(ctx: &mut Ctx<'_, '_>) -> Option<Vec<Step>> {
    let (mut found, mut overflow, mut i) = (Vec::new(), Overflow::Wrap, 2);
    while i < ctx.args.len() {
        let more = ctx.args.len() - 1 - i;
        let word = ctx.args[i].to_ascii_lowercase();
        let wanted = match word.as_slice() {
            b"get" => 2,
            b"set" | b"incrby" => 3,
            b"overflow" => 1,
            _ => usize::MAX,
        };
        if more < wanted {
            ctx.reply.syntax_error();
            return None;
        }
        if word == b"overflow" {
            overflow = match ctx.args[i + 1].to_ascii_lowercase().as_slice() {
                b"wrap" => Overflow::Wrap,
                b"sat" => Overflow::Saturate,
                b"fail" => Overflow::Fail,
                _ => {
                    ctx.reply.error("ERR Invalid OVERFLOW type specified");
                    return None;
                }
            };
            i += 2;
            continue;
        }
        let Some(kind) = Kind::parse(ctx.args[i + 1]) else {
            ctx.reply.error(
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
            );
            return None;
        };
        let at = offset(ctx, i + 2, kind)?;
        let action = match word.as_slice() {
            b"get" => Action::Get,
            b"set" => Action::Set(ctx.int_arg(i + 3)?),
            _ => Action::Incr(ctx.int_arg(i + 3)?),
        };
        found.push(Step { kind, at, action, overflow });
        i += wanted + 1;
    }
    Some(found)
}

/// A bit's place, or `#n`: that of the n-th integer of this width.
fn offset(ctx: &mut Ctx<'_, '_>, i: usize, kind: Kind) -> Option<usize> {
    let bytes_max = value_bytes_max(ctx) as i64;
    let (text, times) = match ctx.args[i] {
        [b'#', rest @ ..] => (rest, i64::from(kind.bits)),
        text => (text, 1),
    };
    let at = parse_i64(text).and_then(|n| n.checked_mul(times));
    let at = at.filter(|at| *at >= 0 && at / 8 < bytes_max);
    if at.is_none() {
        ctx.reply.error("ERR bit offset is not an integer or out of range");
    }
    at.map(|at| at as usize)
}

fn bitfield(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some(steps) = steps(ctx) else { return };
    let writes = |step: &&Step| !matches!(step.action, Action::Get);
    let needed = steps.iter().filter(writes).map(Step::end_byte).max();
    if needed.is_some() && ctx.command.name == "bitfield_ro" {
        return ctx.reply.error("ERR BITFIELD_RO only supports the GET subcommand");
    }
    // Who only reads is told of misses.
    ctx.db.tells_misses = needed.is_none() && ctx.db.env.events != 0;
    let is_raw = ctx.db.peek(key).is_some_and(|entry| entry.is_raw());
    let old = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(old) => old.unwrap_or_default(),
    };
    let run = |value: &mut [u8]| steps.iter().map(|step| step.run(value)).collect::<Vec<_>>();
    let done: Vec<(Option<i64>, bool)> = match needed {
        None => {
            let read = |step: &Step| (Some(step.kind.read(old, step.at)), false);
            steps.iter().map(read).collect()
        }
        // Long ones are changed where they are.
        Some(needed) if needed <= old.len() && is_raw => {
            ctx.db.update_string(key, run).ok().flatten().unwrap_or_default()
        }
        Some(needed) => {
            let mut value = old.to_vec();
            value.resize(old.len().max(needed), 0);
            let done = run(&mut value);
            if done.iter().any(|(_, wrote)| *wrote) {
                ctx.db.set_changed(key, &value);
            }
            done
        }
    };
    if done.iter().any(|(_, wrote)| *wrote) {
        ctx.modified(key);
    }
    ctx.reply.array(done.len());
    for (number, _) in done {
        match number {
            Some(number) => ctx.reply.int(number),
            None => ctx.reply.null(),
        }
    }
}
