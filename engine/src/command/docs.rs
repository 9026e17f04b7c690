//! What COMMAND DOCS says beyond the table of commands: cost, arguments, history.
//!
//! Arguments stand as one line in the notation of manuals, with a little more in it, and are read when they are asked for:
//!
//! ```text
//! key            a value; its type behind a colon, where it is no text: source:key count:int
//! EX  *          a word that stands for itself: capitals or signs
//! [a b]          may be left out
//! <a|b>  [A|B]   one of these
//! {a b}          belong together
//! a+  {a b}+     once or several times
//! [GET a]++      several times, with its word each time
//! {GROUP a b}    the first word of a bracket, or of one of its alternatives, is that of all behind it
//! ```
//!
//! redis-cli makes its hints out of the answer, whose form is that of Redis 7.2.

mod rows;
mod subs;

use crate::resp::Reply;

struct Row {
    name: &'static str,
    complexity: &'static str,
    arguments: &'static str,
}

/// One argument, or several that are one to whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Argument {
    name: String,
    token: Option<&'static str>,
    kind: Kind,
    optional: bool,
    multiple: bool,
    multiple_token: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// By the name of its type.
    Value(&'static str),
    Token,
    OneOf(Vec<Argument>),
    Block(Vec<Argument>),
}

/// That of `get` or of `config|get`.
fn row(name: &str) -> Option<&'static Row> {
    rows::ROWS.iter().chain(subs::ROWS).find(|row| row.name == name)
}

/// How many fields `write` adds.
pub(super) fn fields(name: &str) -> usize {
    row(name).map_or(0, |row| {
        1 + usize::from(!row.arguments.is_empty()) + usize::from(later(name).is_some())
    })
}

fn later(name: &str) -> Option<rows::Later> {
    let mut all = rows::HISTORY.iter().chain(subs::HISTORY);
    all.find(|(command, _)| *command == name).map(|(_, later)| *later)
}

pub(super) fn write(reply: &mut Reply, name: &str) {
    let Some(row) = row(name) else { return };
    reply.bulk(b"complexity");
    reply.bulk(row.complexity.as_bytes());
    if let Some(later) = later(name) {
        reply.bulk(b"history");
        reply.set(later.len());
        for (version, what) in later {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(what.as_bytes());
        }
    }
    if !row.arguments.is_empty() {
        reply.bulk(b"arguments");
        write_all(reply, &Reader(row.arguments).sequence());
    }
}

fn write_all(reply: &mut Reply, arguments: &[Argument]) {
    reply.array(arguments.len());
    for argument in arguments {
        argument.write(reply);
    }
}

impl Argument {
    fn new(name: String, kind: Kind) -> Argument {
        Argument {
            name,
            token: None,
            kind,
            optional: false,
            multiple: false,
            multiple_token: false,
        }
    }

    fn write(&self, reply: &mut Reply) {
        let (kind, parts) = match &self.kind {
            Kind::Value(kind) => (*kind, None),
            Kind::Token => ("pure-token", None),
            Kind::OneOf(parts) => ("oneof", Some(parts)),
            Kind::Block(parts) => ("block", Some(parts)),
        };
        let flags: Vec<&str> = [
            (self.optional, "optional"),
            (self.multiple, "multiple"),
            (self.multiple_token, "multiple_token"),
        ]
        .into_iter()
        .filter_map(|(is, name)| is.then_some(name))
        .collect();
        // What is shown is the name, for all but those that show their parts.
        reply.map(3 + usize::from(self.token.is_some()) + usize::from(!flags.is_empty()));
        reply.bulk(b"name");
        reply.bulk(self.name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(kind.as_bytes());
        if parts.is_none() {
            reply.bulk(b"display_text");
            reply.bulk(self.name.as_bytes());
        }
        if let Some(token) = self.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
        if let Some(parts) = parts {
            reply.bulk(b"arguments");
            write_all(reply, parts);
        }
    }
}

/// What is left of a line. The lines are our own: what does not fit the notation is found by a test, and left out here.
struct Reader(&'static str);

impl Reader {
    fn next_sign(&mut self) -> Option<char> {
        self.0 = self.0.trim_start_matches(' ');
        self.0.chars().next()
    }

    fn take(&mut self, sign: char) -> bool {
        let rest = self.0.strip_prefix(sign);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Up to the end, a `|` or the end of a bracket.
    fn sequence(&mut self) -> Vec<Argument> {
        let mut found = Vec::new();
        while let Some(sign) =
            self.next_sign().filter(|sign| !matches!(sign, '|' | ']' | '>' | '}'))
        {
            let close = match sign {
                '[' => Some(']'),
                '<' => Some('>'),
                '{' => Some('}'),
                _ => None,
            };
            let mut argument = match close {
                Some(close) => {
                    self.take(sign);
                    let mut argument = self.alternatives();
                    self.next_sign();
                    self.take(close);
                    argument.optional |= sign == '[';
                    argument
                }
                None => self.word(),
            };
            if self.take('+') {
                argument.multiple = true;
                argument.multiple_token = self.take('+');
            }
            found.push(argument);
        }
        found
    }

    fn alternatives(&mut self) -> Argument {
        let mut all = vec![as_one(self.sequence())];
        while self.take('|') {
            all.push(as_one(self.sequence()));
        }
        if all.len() > 1 {
            let names: Vec<&str> = all.iter().map(|argument| argument.name.as_str()).collect();
            return Argument::new(names.join("-or-"), Kind::OneOf(all));
        }
        all.remove(0)
    }

    fn word(&mut self) -> Argument {
        let end = self.0.find([' ', '|', ']', '>', '}', '+']).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end.max(1));
        self.0 = rest;
        // The last colon: a name may have one of its own, as in ip:port:string.
        let (name, kind) = word.rsplit_once(':').unwrap_or((word, ""));
        if !name.contains(|c: char| c.is_ascii_lowercase()) {
            let token = Argument::new(name.to_ascii_lowercase(), Kind::Token);
            return Argument { token: Some(word), ..token };
        }
        let kind = match kind {
            "" if name == "key" => "key",
            "" => "string",
            "int" => "integer",
            "time" => "unix-time",
            other => other,
        };
        Argument::new(name.to_owned(), Kind::Value(kind))
    }
}

/// The words of one alternative as one argument: a word in capitals before others is the word of all of them.
fn as_one(mut all: Vec<Argument>) -> Argument {
    let is_token = |argument: &Argument| argument.kind == Kind::Token && !argument.optional;
    let is_named = all.first().is_some_and(is_token) && !all[1..].iter().any(is_token);
    if all.len() == 1 {
        return all.remove(0);
    }
    let token = if is_named { all.remove(0).token } else { None };
    let name = token.map(str::to_ascii_lowercase);
    if all.len() == 1 && all[0].token.is_none() && !all[0].optional {
        return Argument { token, ..all.remove(0) };
    }
    let first = all.first().map(|argument| argument.name.clone());
    let name = name.or(first).unwrap_or_default();
    Argument { token, ..Argument::new(name, Kind::Block(all)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{all, find, subcommands};

    fn read(line: &'static str) -> Vec<Argument> {
        let mut reader = Reader(line);
        let found = reader.sequence();
        assert_eq!(reader.0, "", "{line}");
        found
    }

    /// The line again, as a manual would print it.
    fn shown(all: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let body = match &argument.kind {
                Kind::Value(_) => argument.name.clone(),
                Kind::Token => String::new(),
                Kind::OneOf(parts) => {
                    let parts: Vec<String> =
                        parts.iter().map(|part| shown(std::slice::from_ref(part))).collect();
                    parts.join("|")
                }
                Kind::Block(parts) => shown(parts),
            };
            let text = format!("{} {body}", argument.token.unwrap_or_default()).trim().to_owned();
            let more = if argument.multiple { format!("{text} ...") } else { text };
            if argument.optional { format!("[{more}]") } else { more }
        };
        all.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lines_are_read_as_manuals_print_them() {
        for (line, manual) in [
            ("key+", "key ..."),
            ("key count:int [LIMIT offset:int count:int]", "key count [LIMIT offset count]"),
            ("key [NX|XX] [EX seconds:int|KEEPTTL]", "key [NX|XX] [EX seconds|KEEPTTL]"),
            (
                "[GET pattern:pattern]++ [AGGREGATE <SUM|MIN>]",
                "[GET pattern ...] [AGGREGATE SUM|MIN]",
            ),
            (
                "{GROUP group consumer} <*|id> {field value}+",
                "GROUP group consumer *|id field value ...",
            ),
            ("<host port:int|NO ONE>", "host port|NO ONE"),
            (
                "[<MAXLEN|MINID> [=|~] threshold [LIMIT count:int]]",
                "[MAXLEN|MINID [=|~] threshold [LIMIT count]]",
            ),
        ] {
            assert_eq!(shown(&read(line)), manual, "{line}");
        }
        let limit = &read("[LIMIT offset:int count:int]")[0];
        assert_eq!((limit.token, limit.optional), (Some("LIMIT"), true));
        let parts = ["offset", "count"].map(|n| Argument::new(n.into(), Kind::Value("integer")));
        assert_eq!(limit.kind, Kind::Block(parts.into()));
    }

    fn every_value(all: &[Argument], check: &dyn Fn(&str)) {
        for argument in all {
            match &argument.kind {
                Kind::Value(kind) => check(kind),
                Kind::Token => {}
                Kind::OneOf(parts) | Kind::Block(parts) => every_value(parts, check),
            }
        }
    }

    /// How many words there are at least.
    fn least(all: &[Argument]) -> usize {
        let one = |argument: &Argument| {
            usize::from(argument.token.is_some())
                + match &argument.kind {
                    Kind::Value(_) => 1,
                    Kind::Token => 0,
                    Kind::OneOf(parts) => {
                        let each = parts.iter().map(|p| least(std::slice::from_ref(p)));
                        each.min().unwrap_or(0)
                    }
                    Kind::Block(parts) => least(parts),
                }
        };
        all.iter().filter(|argument| !argument.optional).map(one).sum()
    }

    /// Reads the arguments of a row; `words` are those of a request without its name.
    fn check(row: &Row, words: u64) {
        let known = ["key", "string", "integer", "double", "pattern", "unix-time"];
        let arguments = read(row.arguments);
        every_value(&arguments, &|kind| assert!(known.contains(&kind), "{}: {kind}", row.name));
        assert_eq!(least(&arguments) as u64, words, "{}", row.name);
    }

    #[test]
    fn every_row_is_of_a_command_and_fits_its_arity() {
        for row in rows::ROWS {
            let command = find(row.name.as_bytes()).unwrap_or_else(|| panic!("{}", row.name));
            check(row, u64::from(command.arity.unsigned_abs()) - 1);
        }
        for (name, _) in rows::HISTORY.iter().chain(subs::HISTORY) {
            assert!(row(name).is_some(), "{name}");
        }
        let told = all().filter(|command| fields(command.name) > 0).count();
        assert_eq!(told, rows::ROWS.len(), "a name stands twice");
    }

    #[test]
    fn every_command_that_clients_know_has_a_row() {
        let is_ours = |name: &str| name.starts_with("larder.");
        for command in all().filter(|command| !is_ours(command.name)) {
            let is_container = !subcommands::of(command).is_empty();
            assert!(is_container || row(command.name).is_some(), "{} has no row", command.name);
        }
    }

    #[test]
    fn every_subcommand_has_a_row_that_fits_its_arity() {
        let mut told = 0;
        for command in all() {
            for sub in subcommands::of(command) {
                let name = format!("{}|{}", command.name, sub.name);
                let row = row(&name).unwrap_or_else(|| panic!("{name} has no row"));
                // The table's arity is that of other servers; whoever names too little is told so by the command.
                let words =
                    if name == "cluster|migrateslots" { 5 } else { sub.arity.unsigned_abs() - 2 };
                check(row, words);
                told += 1;
            }
        }
        assert_eq!(told, subs::ROWS.len(), "a row of nothing, or a name twice");
    }
}
