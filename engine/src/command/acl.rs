//! ACL: users and their rights, and who was refused what.

use super::{Command, Ctx, Group, Keys, all, categories, flag};
use crate::acl::{self, Context, Selector, User};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("acl", -2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SKIP_LOG, Keys::None, Group::Server, "6.0.0", "Users, their passwords and rights, and who was refused what.", run),
];

const HELP: &[&str] = &[
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAT [<category>]",
    "    The categories, or the commands of one.",
    "SETUSER <username> [<rule> ...], DELUSER <username> [<username> ...]",
    "    Make, change and remove users.",
    "GETUSER <username>, LIST, USERS, WHOAMI",
    "    One user, all of them as lines of a file, their names, the own name.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Whether the user may run the command.",
    "GENPASS [<bits>]",
    "    A random password.",
    "LOG [<count> | RESET]",
    "    Who was refused what, newest first.",
    "LOAD, SAVE",
    "    Read the users from the ACL file, or write them into it.",
];

const NO_FILE: &str = "ERR This instance is not configured to use an ACL file. You may want to specify users via the \
    ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a configuration file set) in order to store \
    users in the configuration.";

fn run(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"setuser", 3..) => set_user(ctx),
        (b"deluser", 3..) => delete_users(ctx),
        (b"getuser", 3) => get_user(ctx),
        (b"list", 2) => {
            let users = ctx.shared.acl.users();
            ctx.reply.array(users.len());
            users.iter().for_each(|user| ctx.reply.bulk(&user.line()));
        }
        (b"users", 2) => {
            let users = ctx.shared.acl.users();
            ctx.reply.array(users.len());
            users.iter().for_each(|user| ctx.reply.bulk(user.name.as_bytes()));
        }
        (b"whoami", 2) => match &ctx.session.rights.user {
            Some(user) => ctx.reply.bulk(user.name.as_bytes()),
            None => ctx.reply.null(),
        },
        (b"cat", 2) => {
            ctx.reply.array(categories::NAMES.len());
            categories::NAMES.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
        }
        (b"cat", 3) => cat(ctx),
        (b"genpass", 2..=3) => generate_password(ctx),
        (b"dryrun", 4..) => dry_run(ctx),
        (b"log", 2..=3) => log(ctx),
        (b"load" | b"save", 2) => file(ctx, word == b"load"),
        (b"help", 2) => ctx.help(HELP),
        // Those that take an argument or none know their words' number only here.
        (b"cat" | b"genpass" | b"log", _) => ctx.bad_subcommand(),
        (
            b"setuser" | b"deluser" | b"getuser" | b"list" | b"users" | b"whoami" | b"dryrun"
            | b"load" | b"save" | b"help",
            _,
        ) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

fn set_user(ctx: &mut Ctx<'_, '_>) {
    let shared = ctx.shared;
    let all_channels = acl::all_channels(&shared.config);
    match shared.acl.set_user(ctx.args[2], &ctx.args[3..], all_channels) {
        Ok(()) => {
            acl::close_subscribers(shared);
            // What comes behind it in a pipeline or a transaction runs under the new rules.
            shared.acl.refresh(ctx.session);
            ctx.reply.ok();
        }
        Err(error) => ctx.reply.error(&format!("ERR {error}")),
    }
}

fn delete_users(ctx: &mut Ctx<'_, '_>) {
    let names = &ctx.args[2..];
    if names.iter().any(|name| *name == b"default") {
        return ctx.reply.error("ERR The 'default' user cannot be removed");
    }
    let removed = ctx.shared.acl.remove(names);
    ctx.reply.int(removed.len() as i64);
    if removed.is_empty() {
        return;
    }
    let me = ctx.session.info.id;
    let is_removed = |name: &str| removed.iter().any(|user| user.name == name);
    for client in ctx.shared.clients.all() {
        if !is_removed(&client.names().user) {
            continue;
        }
        if client.id == me {
            // The reply goes out first.
            ctx.session.after = crate::session::After::Close;
        } else {
            ctx.shared.kill(&client);
        }
    }
    ctx.shared.acl.refresh(ctx.session);
}

fn user_named(ctx: &Ctx<'_, '_>, at: usize) -> Option<std::sync::Arc<User>> {
    std::str::from_utf8(ctx.args[at]).ok().and_then(|name| ctx.shared.acl.user(name))
}

fn get_user(ctx: &mut Ctx<'_, '_>) {
    let Some(user) = user_named(ctx, 2) else { return ctx.reply.null() };
    ctx.reply.map(6 + usize::from(user.root().has_databases()));
    ctx.reply.bulk(b"flags");
    let flags = user.flags();
    ctx.reply.set(flags.len());
    flags.iter().for_each(|flag| ctx.reply.bulk(flag.as_bytes()));
    ctx.reply.bulk(b"passwords");
    let hashes = user.hashes();
    ctx.reply.array(hashes.len());
    hashes.iter().for_each(|hash| ctx.reply.bulk(hash.as_bytes()));
    describe(ctx, user.root());
    ctx.reply.bulk(b"selectors");
    ctx.reply.array(user.others().len());
    for selector in user.others() {
        ctx.reply.map(3 + usize::from(selector.has_databases()));
        describe(ctx, selector);
    }
}

fn describe(ctx: &mut Ctx<'_, '_>, selector: &Selector) {
    let (keys, channels) = (selector.keys_text(), selector.channels_text());
    let commands = selector.commands_text().into_bytes();
    // Not where there is no rule on them: servers that know none do not tell of them either.
    let databases = selector.has_databases().then(|| selector.databases_told().into_bytes());
    let databases = databases.map(|text| ("databases", text));
    let texts = [("commands", commands), ("keys", keys), ("channels", channels)];
    for (name, text) in texts.into_iter().chain(databases) {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.bulk(&text);
    }
}

fn cat(ctx: &mut Ctx<'_, '_>) {
    let Some(category) = categories::find(ctx.args[2]) else {
        let name = super::exec::printable(ctx.args[2]);
        return ctx.reply.error(&format!("ERR Unknown category '{name}'"));
    };
    let members = categories::members(category);
    ctx.reply.array(members.len());
    members.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
}

fn generate_password(ctx: &mut Ctx<'_, '_>) {
    const BITS_MAX: i64 = 4096;
    let mut bits = 256;
    if ctx.args.len() == 3 {
        let Some(n) = ctx.int_arg(2) else { return };
        bits = n;
    }
    if !(1..=BITS_MAX).contains(&bits) {
        return ctx.reply.error(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        );
    }
    let digits = (bits as usize).div_ceil(4);
    match crate::random::secret_hex(digits) {
        Some(text) => ctx.reply.bulk(text.as_bytes()),
        None => ctx.reply.error("ERR the system gives no random numbers"),
    }
}

fn dry_run(ctx: &mut Ctx<'_, '_>) {
    use super::exec::printable;
    let args = &ctx.args[3..];
    let Some(user) = user_named(ctx, 2) else {
        let name = printable(ctx.args[2]);
        return ctx.reply.error(&format!("ERR User '{name}' not found"));
    };
    let Some(command) = all().find(|c| c.name.as_bytes().eq_ignore_ascii_case(args[0])) else {
        let name = printable(args[0]);
        return ctx.reply.error(&format!("ERR Command '{name}' not found"));
    };
    if !command.arity_fits(args.len()) {
        let name = command.name;
        return ctx.reply.error(&format!("ERR wrong number of arguments for '{name}' command"));
    }
    match user.check(command, args, ctx.session.db) {
        Ok(()) => ctx.reply.ok(),
        Err(denied) => {
            let text = acl::told_text(&user, denied, command, args);
            ctx.reply.bulk(text.as_bytes());
        }
    }
}

fn log(ctx: &mut Ctx<'_, '_>) {
    if ctx.is_word(2, "reset") {
        ctx.shared.acl.log.clear();
        return ctx.reply.ok();
    }
    let mut count = 10;
    if ctx.args.len() == 3 {
        let Some(n) = ctx.int_arg(2) else { return };
        count = n.max(0) as usize;
    }
    let now_ms = ctx.db.now_ms();
    let entries = ctx.shared.acl.log.newest(count);
    ctx.reply.array(entries.len());
    for entry in entries {
        ctx.reply.map(10);
        let texts: [(&str, &[u8]); 4] = [
            ("reason", entry.reason.name().as_bytes()),
            ("context", Context::name(entry.context).as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ];
        ctx.reply.bulk(b"count");
        ctx.reply.int(entry.count as i64);
        for (name, text) in texts {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.bulk(text);
        }
        ctx.reply.bulk(b"age-seconds");
        ctx.reply.double((now_ms - entry.updated_ms) as f64 / 1000.0);
        ctx.reply.bulk(b"client-info");
        ctx.reply.bulk(entry.client.as_bytes());
        for (name, n) in [
            ("entry-id", entry.id as i64),
            ("timestamp-created", entry.created_ms),
            ("timestamp-last-updated", entry.updated_ms),
        ] {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.int(n);
        }
    }
}

fn file(ctx: &mut Ctx<'_, '_>, is_load: bool) {
    let Some(path) = acl::file_of(&ctx.shared.config) else { return ctx.reply.error(NO_FILE) };
    if is_load {
        if let Err(error) = acl::load(ctx.shared, &path) {
            return ctx.reply.error(&format!("ERR {error}"));
        }
        ctx.shared.acl.refresh(ctx.session);
    } else if let Err(error) = acl::save(ctx.shared, &path) {
        tracing::warn!(%error, "the ACL file cannot be written");
        return ctx.reply.error(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        );
    }
    ctx.reply.ok();
}
