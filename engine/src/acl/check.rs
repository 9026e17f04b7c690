//! Looking at a request of a user who may not do everything: the refusal's text, and its entry in the log.

use std::sync::Arc;

use super::{Context, Denied, Reason, Refusal, User};
use crate::command::exec::printable;
use crate::command::{Command, categories, client};
use crate::server::Shared;
use crate::session::{ClientInfo, Session};
use crate::tls::secure::Connection;
use crate::waiters::Waiter;

/// `get` or `config|get`.
pub(crate) fn full_name(command: &'static Command, args: &[&[u8]]) -> &'static str {
    categories::sub_of(command, args).map_or(command.name, |sub| sub.full_name.as_str())
}

/// What a refusal says without saying which key or channel it is about.
fn text(user: &User, denied: Denied, command: &'static Command, args: &[&[u8]]) -> String {
    match denied.reason {
        Reason::Key => "NOPERM No permissions to access a key".into(),
        Reason::Channel => "NOPERM No permissions to access a channel".into(),
        Reason::Database => "NOPERM No permissions to access database".into(),
        Reason::Command | Reason::Auth | Reason::Certificate => {
            let (name, command) = (&user.name, full_name(command, args));
            format!("NOPERM User {name} has no permissions to run the '{command}' command")
        }
    }
}

/// The same for ACL DRYRUN, whose caller may know.
pub(crate) fn told_text(
    user: &User,
    denied: Denied,
    command: &'static Command,
    args: &[&[u8]],
) -> String {
    let (name, object) = (&user.name, || printable(args[denied.at]));
    match denied.reason {
        Reason::Key => format!("User {name} has no permissions to access the '{}' key", object()),
        Reason::Channel => {
            format!("User {name} has no permissions to access the '{}' channel", object())
        }
        Reason::Database => {
            format!("User {name} has no permissions to access database {}", object())
        }
        Reason::Command | Reason::Auth | Reason::Certificate => {
            format!(
                "User {name} has no permissions to run the '{}' command",
                full_name(command, args)
            )
        }
    }
}

fn note(
    shared: &Shared,
    client: &ClientInfo,
    user: &User,
    denied: Denied,
    context: Context,
    (command, args): (&'static Command, &[&[u8]]),
    now_ms: i64,
) {
    let object = match denied.reason {
        Reason::Command | Reason::Auth | Reason::Certificate => full_name(command, args).as_bytes(),
        Reason::Key | Reason::Channel | Reason::Database => args[denied.at],
    };
    let (reason, user, client) =
        (denied.reason, user.name.as_bytes(), client::line(client, now_ms));
    let refusal = Refusal { reason, context, object, user, client, now_ms };
    shared.acl.log.add(refusal, log_length_max(shared));
}

fn denied(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
    context: Context,
    now_ms: i64,
) -> Option<(Arc<User>, Denied)> {
    let user = session.rights.user.clone()?;
    let denied = user.check(command, args, session.db).err()?;
    note(shared, &session.info, &user, denied, context, (command, args), now_ms);
    Some((user, denied))
}

/// Why a session may not make a request; the refusal is in the log then. To be asked when `rights.restricted`.
#[cold]
pub fn refusal(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
    context: Context,
    now_ms: i64,
) -> Option<String> {
    let (user, denied) = denied(shared, session, command, args, context, now_ms)?;
    Some(text(&user, denied, command, args))
}

/// The same for a queued request when its turn has come.
#[cold]
pub fn refusal_at_exec(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
    now_ms: i64,
) -> Option<String> {
    let (_, denied) = denied(shared, session, command, args, Context::Multi, now_ms)?;
    let reason = match denied.reason {
        Reason::Command => "no permission to execute the command or subcommand",
        Reason::Key => "no permission to touch the specified keys",
        Reason::Channel => "no permission to access one of the channels used as arguments",
        Reason::Database => "no permission to access the database",
        Reason::Auth | Reason::Certificate => "no permission",
    };
    Some(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
         command is no longer allowed for the following reason: {reason}"
    ))
}

/// Why a client that has waited for a key may not have it any more.
pub fn refusal_of_waiter(shared: &Shared, waiter: &Waiter, now_ms: i64) -> Option<String> {
    let user = shared.acl.restricted_user_of(&waiter.client)?;
    let args: Vec<&[u8]> = waiter.args.iter().map(Vec::as_slice).collect();
    let denied = user.check(waiter.command, &args, waiter.db).err()?;
    note(shared, &waiter.client, &user, denied, Context::TopLevel, (waiter.command, &args), now_ms);
    Some(text(&user, denied, waiter.command, &args))
}

/// A client that has shown a certificate is the user whom it names, where that is how clients log in. One that names
/// nobody leaves the client as any other.
pub fn log_in_by_certificate(
    shared: &Shared,
    session: &mut Session,
    connection: &Connection,
    now_ms: i64,
) {
    let by_name = shared.config.get("tls-auth-clients-user").is_some_and(|by| by == "CN");
    let Some(certificate) = connection.certificate().filter(|_| by_name) else { return };
    let named = crate::tls::name::user_name(certificate);
    let user = named.ok().flatten().and_then(|name| shared.acl.user(name));
    // Memcached's clients may do everything or nothing.
    let fits = |user: &Arc<User>| !session.info.is_memcached() || user.is_unrestricted();
    if let Some(user) = user.filter(|user| user.enabled && fits(user)) {
        tracing::debug!(user = user.name, "logged in by certificate");
        return shared.acl.become_user(session, user);
    }
    let name = match named {
        Ok(name) => name.unwrap_or_default(),
        Err(why) => {
            tracing::warn!(client = session.info.addr, "a certificate logs nobody in: {why}");
            ""
        }
    };
    let client = client::line(&session.info, now_ms);
    let (reason, context) = (Reason::Certificate, Context::TopLevel);
    let refusal = Refusal { reason, context, object: b"", user: name.as_bytes(), client, now_ms };
    shared.acl.log.add(refusal, log_length_max(shared));
}

fn log_length_max(shared: &Shared) -> usize {
    let length_max = shared.config.int("acllog-max-len", 128).max(0);
    usize::try_from(length_max).unwrap_or(usize::MAX)
}

/// Notes a wrong password.
pub fn note_wrong_password(
    shared: &Shared,
    session: &Session,
    user: &[u8],
    word: &[u8],
    now_ms: i64,
) {
    let context = if session.queue.is_some() { Context::Multi } else { Context::TopLevel };
    let client = client::line(&session.info, now_ms);
    let refusal = Refusal { reason: Reason::Auth, context, object: word, user, client, now_ms };
    shared.acl.log.add(refusal, log_length_max(shared));
}
