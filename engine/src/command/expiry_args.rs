//! Expiry times as arguments: EX, PX, EXAT, PXAT, and what is refused.

use super::Ctx;

/// What a SET or GETEX does to the expiry time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expiry {
    None,
    Keep,
    /// Unix milliseconds.
    At(i64),
}

/// `EX n`, `PX n`, `EXAT n` or `PXAT n` at argument `i`. `None`: it is none of them; an error has been replied.
pub(super) fn parse_expiry(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<Result<Expiry, ()>> {
    let (unit_ms, relative) = if ctx.is_word(i, "ex") {
        (1000, true)
    } else if ctx.is_word(i, "px") {
        (1, true)
    } else if ctx.is_word(i, "exat") {
        (1000, false)
    } else if ctx.is_word(i, "pxat") {
        (1, false)
    } else {
        return None;
    };
    let Some(n) = ctx.int_arg(i + 1) else { return Some(Err(())) };
    let base = if relative { ctx.db.now_ms() } else { 0 };
    match n.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base)) {
        Some(at) if n > 0 => Some(Ok(Expiry::At(at))),
        _ => {
            invalid(ctx);
            Some(Err(()))
        }
    }
}

/// KEEPTTL, or one of the above, among other options at argument `i`: gives how many more arguments it took. `None`: an
/// error has been replied, also where there is an expiry already.
pub(super) fn expiry_option(ctx: &mut Ctx<'_, '_>, i: usize, expiry: &mut Expiry) -> Option<usize> {
    if *expiry == Expiry::None {
        if ctx.is_word(i, "keepttl") {
            *expiry = Expiry::Keep;
            return Some(0);
        }
        if i + 1 < ctx.args.len()
            && let Some(parsed) = parse_expiry(ctx, i)
        {
            *expiry = parsed.ok()?;
            return Some(1);
        }
    }
    ctx.reply.syntax_error();
    None
}

/// Refuses a time that is not positive, or beyond what can be counted.
pub(super) fn invalid(ctx: &mut Ctx<'_, '_>) {
    let text = format!("ERR invalid expire time in '{}' command", ctx.command.name);
    ctx.reply.error(&text);
}
