//! LOLWUT: a larder of this server's own, another one each time.

use super::{Command, Ctx, Group, Keys, flag, info};
use crate::random;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("lolwut", -1, flag::READONLY | flag::FAST, Keys::None, Group::Server, "5.0.0", "Draws a larder, and tells the version.", lolwut),
];

/// Jars on a shelf, and shelves, unless the client says so; and at most.
const JARS: i64 = 9;
const SHELVES: i64 = 3;
const JARS_MAX: i64 = 60;
const SHELVES_MAX: i64 = 20;
/// What is in jars, from the thinnest on.
const CONTENTS: &[u8] = b".:-=+*o#%@";
/// Lines of a jar between its lid and its bottom.
const HEIGHT: usize = 3;
/// Characters that a jar takes.
const WIDTH: usize = 7;

/// A jar: what is in it, and how many lines of it.
type Jar = (char, usize);

fn shelf(text: &mut String, jars: &[Jar]) {
    let mut line = |draw: &dyn Fn(&Jar) -> String| {
        let drawn: String = jars.iter().map(draw).collect();
        text.push_str(drawn.trim_end());
        text.push('\n');
    };
    line(&|_| "  ___  ".into());
    for row in 0..HEIGHT {
        line(&|(content, filled)| {
            let inside = if row + filled >= HEIGHT { *content } else { ' ' };
            let [left, right] = if row == 0 { ['/', '\\'] } else { ['|', '|'] };
            let inside = String::from(inside).repeat(WIDTH - 4);
            format!(" {left}{inside}{right} ")
        });
    }
    line(&|_| " `---' ".into());
    text.push_str(&"=".repeat(jars.len() * WIDTH));
    text.push('\n');
}

/// `LOLWUT [VERSION version] [jars [shelves]]`
fn lolwut(ctx: &mut Ctx<'_, '_>) {
    let mut at = 1;
    if ctx.args.len() > 2 && ctx.is_word(1, "version") {
        // There is one picture, whatever version of it is asked for.
        if ctx.int_arg(2).is_none() {
            return;
        }
        at = 3;
    }
    let mut size = [(JARS, JARS_MAX), (SHELVES, SHELVES_MAX)];
    for (i, (wanted, most)) in size.iter_mut().enumerate() {
        if ctx.args.len() > at + i {
            let Some(n) = ctx.int_arg(at + i) else { return };
            *wanted = n.clamp(1, *most);
        }
    }
    let [(jars, _), (shelves, _)] = size;
    let mut text = String::new();
    for _ in 0..shelves {
        let jar = |_| {
            let content = CONTENTS[random::below(CONTENTS.len() as u64) as usize];
            (char::from(content), random::below(HEIGHT as u64 + 1) as usize)
        };
        let row: Vec<Jar> = (0..jars).map(jar).collect();
        shelf(&mut text, &row);
    }
    text.push_str(&format!("\nLarder ver. {}\n", info::LARDER_VERSION));
    ctx.reply.verbatim(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jars_are_as_full_as_they_are() {
        let mut text = String::new();
        shelf(&mut text, &[('o', 0), ('#', 2), ('.', 3)]);
        let expected = [
            "  ___    ___    ___",
            " /   \\  /   \\  /...\\",
            " |   |  |###|  |...|",
            " |   |  |###|  |...|",
            " `---'  `---'  `---'",
            "=====================",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
