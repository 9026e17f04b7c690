//! docs/commands.md is what the table of commands says: `UPDATE_DOCS=1 cargo test` writes it anew.

use std::fmt::Write;
use std::path::Path;

use engine::command::{all, flag, table};

/// The page, a section for each group of commands.
fn page() -> String {
    let mut out = String::from(
        "# Commands\n\n\
         Generated from the table of commands (`engine/src/command`); names, arities and replies are those of\n\
         Redis 7.2. An arity counts the name; a negative one means at least that many words.\n",
    );
    let mut groups: Vec<&str> = Vec::new();
    for command in all() {
        let group = table::group_name(command.group);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    for group in groups {
        let _ = write!(
            out,
            "\n## {group}\n\n| command | arity | flags | what it does |\n|---|---|---|---|\n"
        );
        let mut rows: Vec<_> = all().filter(|c| table::group_name(c.group) == group).collect();
        rows.sort_by_key(|c| c.name);
        for command in rows {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                command.name.to_ascii_uppercase(),
                command.arity,
                table::flag_names(command).join(" "),
                command.summary,
            );
        }
    }
    out
}

#[test]
fn commands_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/commands.md is old: UPDATE_DOCS=1 cargo test -p engine --test commands_page"
    );
}

#[test]
fn every_row_is_consistent() {
    for command in all() {
        let both = command.is(flag::WRITE) && command.is(flag::READONLY);
        assert!(!both, "{} writes and does not", command.name);
        assert!(command.arity != 0 && command.summary.ends_with('.'), "{}", command.name);
        let memory = command.is(flag::DENYOOM) && !command.is(flag::WRITE);
        assert!(!memory, "{} may grow memory without writing", command.name);
    }
}
