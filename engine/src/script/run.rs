//! The handler's side of a script: executes what the script calls, under the locks of the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;

use super::cache::{Breadth, Flags, Script};
use super::interpreter::{self, Answer, Done, Handle, Interpreter, Job, What};
use super::library::{FunctionInfo, Libraries, Library, parse_name};
use super::{CLEAN, CONFLICT_MS, LOAD_MS, Running, SLICE_US, TRUSTED_LOAD_MS, WROTE};
use crate::acl;
use crate::command::exec::{Journaled, STALE, collect, remember};
use crate::command::{Command, Ctx, Effects, events, find, flag};
use crate::eviction::OOM;
use crate::resp::Reply;
use crate::server::{Shared, bump};
use crate::topology::slot_of;
use crate::{busy, clock};

/// Calls of a script between two looks at the clock.
const CALLS: u32 = 64;

/// The script or function of a request.
pub(crate) struct Code(What);

impl Code {
    pub(crate) fn script(script: Arc<Script>) -> Code {
        Code(What::Script(script))
    }

    pub(crate) fn function(library: Arc<Library>, name: Vec<u8>) -> Code {
        Code(What::Function(library, name))
    }

    fn flags(&self) -> Flags {
        match &self.0 {
            What::Script(script) => script.flags,
            What::Function(library, name) => {
                library.functions.get(name).map(|f| f.flags).unwrap_or_default()
            }
        }
    }

    fn is_function(&self) -> bool {
        matches!(self.0, What::Function(..))
    }

    fn breadth(&self) -> Option<&Breadth> {
        match &self.0 {
            What::Script(script) => Some(&script.breadth),
            What::Function(library, name) => library.functions.get(name).map(|f| &f.breadth),
        }
    }

    fn is_narrow(&self) -> bool {
        self.breadth().is_some_and(Breadth::is_narrow)
    }

    fn widen(&self) {
        self.breadth().inspect(|b| b.widen());
    }

    fn narrow(&self) {
        self.breadth().inspect(|b| b.narrow());
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// Runs a library's source and takes the library in. `libraries`: those to be among; the error has no code.
pub(crate) fn load_library(
    shared: &Shared,
    libraries: &mut Libraries,
    source: &[u8],
    replaces: bool,
    is_trusted: bool,
) -> Result<Vec<u8>, String> {
    let name = parse_name(source)?;
    if !replaces && libraries.contains(&name) {
        return Err(format!("Library '{}' already exists", String::from_utf8_lossy(&name)));
    }
    let limit_ms = if is_trusted { TRUSTED_LOAD_MS } else { LOAD_MS };
    let interpreter = interpreter(shared)
        .map_err(|error| error.strip_prefix("ERR ").unwrap_or(&error).to_string())?;
    let registered = interpreter.load_library(source, limit_ms)?;
    if registered.is_empty() {
        return Err("No functions registered".into());
    }
    let info = |f: super::library::Registered| {
        let breadth = Breadth::default();
        (f.name, FunctionInfo { description: f.description, flags: f.flags, breadth })
    };
    let functions = registered.into_iter().map(info).collect();
    let library = Library { name: name.clone(), source: source.to_vec(), functions };
    libraries.add(Arc::new(library), replaces)?;
    Ok(name)
}

/// This thread's interpreter; the error line when there is none to be had.
fn interpreter(shared: &Shared) -> Result<std::rc::Rc<Interpreter>, String> {
    interpreter::mine(shared.config.hot().script_memory_bytes).map_err(|error| {
        interpreter::forget_mine();
        format!("ERR no interpreter can be made: {error}")
    })
}

/// Compiles a script: the error line when it cannot be.
pub(crate) fn check(shared: &Shared, script: &Arc<Script>) -> Result<(), String> {
    let compiled = interpreter(shared)?.compile(script);
    compiled.map(|_| ()).map_err(|e| format!("ERR Error compiling script (new function): {e}"))
}

/// Forgets what this thread has compiled.
pub(crate) fn forget() {
    interpreter::forget_mine();
}

const NOT_LOCAL: &str = "ERR Script attempted to access a non local key in a cluster node";

/// Why a script is being ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// To be run again under all locks.
    Widen,
    Killed,
    /// The server ends, and nothing of it is to be seen.
    Abandoned,
}

struct Handler<'h, 'a, 'k> {
    ctx: &'h mut Ctx<'a, 'k>,
    code: &'h Code,
    flags: Flags,
    read_only: bool,
    /// Used memory was over the limit when the script began.
    is_oom: bool,
    /// The slot that a script in a cluster is bound to: that of its declared keys, or of the first that it touches.
    slot: Option<u16>,
    /// Slots of declared keys.
    declared: SmallVec<[u16; 8]>,
    out: Journaled,
    dirty: u64,
    /// Something happened that a second run would do twice.
    has_acted: bool,
    /// Known to all, since its first slice of time was over.
    running: Option<Arc<Running>>,
    begun_us: u64,
    slice_us: u64,
    calls: u32,
    /// Of one command's reply.
    reply_bytes_max: usize,
    end: Option<End>,
}

/// Runs a script for a request; its reply and effects are the request's.
pub(crate) fn run(
    ctx: &mut Ctx<'_, '_>,
    code: &Code,
    keys: &[&[u8]],
    args: &[&[u8]],
    read_only: bool,
) {
    let flags = code.flags();
    let max = ctx.shared.config.maxmemory();
    let is_oom = max > 0 && ctx.shared.used_memory() > max;
    if let Err(error) = check_terms(ctx, flags, read_only, is_oom) {
        return ctx.reply.error(&error);
    }
    let is_alone = ctx.shared.loops.len() < 2;
    if !is_alone && !code.is_narrow() && !ctx.in_exec && !ctx.db.locked().holds_all() {
        ctx.effects = Effects::Again;
        return;
    }
    let interpreter = match interpreter(ctx.shared) {
        Ok(interpreter) => interpreter,
        Err(error) => return ctx.reply.error(&error),
    };
    let owned = |words: &[&[u8]]| words.iter().map(|w| w.to_vec()).collect();
    let reply_bytes_max = ctx.shared.config.hot().reply_bytes_max;
    let job = Job {
        what: code.0.clone(),
        keys: owned(keys),
        args: owned(args),
        resp3: ctx.reply.resp3,
        reply_bytes_max,
    };
    let (index, session_db) = (ctx.db.index, ctx.session.db);
    let begun_us = clock::monotonic_us();
    let mut handler = Handler {
        code,
        flags,
        read_only: read_only || flags.no_writes,
        is_oom,
        slot: keys.first().map(|key| slot_of(key)),
        declared: keys.iter().map(|key| slot_of(key)).collect(),
        out: Journaled::new(),
        dirty: 0,
        has_acted: false,
        running: None,
        begun_us,
        slice_us: begun_us,
        calls: 0,
        reply_bytes_max,
        end: None,
        ctx,
    };
    let done = interpreter.run(&job, &mut handler);
    let (out, dirty, end) = handler.finish();
    drop(handler);
    ctx.shared.scripts.note_vm(ctx.db.env.thread, interpreter.used_memory());
    ctx.db.index = index;
    ctx.session.select(session_db);
    let Some(done) = done else {
        return ctx.reply.error("BUSY Redis is busy running a script. Another one cannot begin.");
    };
    match end {
        Some(End::Widen) => ctx.effects = Effects::Again,
        Some(End::Abandoned) => {
            // Neither the log nor a replica is to have a part of it.
            ctx.effects = Effects::Listed(Journaled::new());
            ctx.reply.error("ERR the server is shutting down");
        }
        _ => {
            code.narrow();
            ctx.dirty = dirty.max(out.len() as u64);
            ctx.effects = Effects::Listed(out);
            reply(ctx, code, done);
        }
    }
}

fn reply(ctx: &mut Ctx<'_, '_>, code: &Code, done: Done) {
    let Some(place) = done.stopped else {
        ctx.reply.errors += done.reply.errors;
        ctx.reply.over |= done.reply.over;
        ctx.reply.out.extend_from_slice(&done.reply.out);
        return;
    };
    let (what, source) = if code.is_function() {
        ("FUNCTION KILL", "@user_function")
    } else {
        ("SCRIPT KILL", "@user_script")
    };
    let (source, line) = place.unwrap_or_else(|| (source.to_string(), 1));
    let name = code.name();
    ctx.reply.error(&format!(
        "ERR Error running script {name}, Script killed by user with {what}. script: {name}, on {source}:{line}."
    ));
}

/// What refuses a script before it runs, from its own first line and the server's state.
fn check_terms(
    ctx: &Ctx<'_, '_>,
    flags: Flags,
    read_only: bool,
    is_oom: bool,
) -> Result<(), String> {
    if ctx.shared.cluster.is_enabled() && flags.no_cluster {
        return Err("ERR Can not run script on cluster, 'no-cluster' flag is set.".into());
    }
    let writes = !flags.is_legacy && !flags.no_writes && !ctx.session.from_primary;
    if writes && let Some(error) = ctx.shared.state.refuses_write() {
        return Err(error);
    }
    if !flags.allow_stale && ctx.shared.is_stale() {
        return Err(STALE.into());
    }
    if !writes {
        return Ok(());
    }
    if read_only {
        return Err("ERR Can not execute a script with write flag using *_ro command.".into());
    }
    if let Some(error) = ctx.shared.quorum.refusal() {
        return Err(error.into());
    }
    if !flags.allow_oom && is_oom {
        return Err(OOM.into());
    }
    Ok(())
}

fn error(text: &str) -> Answer {
    let mut reply = Reply::new(Vec::new(), false);
    reply.error(text);
    Answer::Reply(reply.out)
}

impl Handle for Handler<'_, '_, '_> {
    fn call(&mut self, request: &[Vec<u8>], resp3: bool, journals: bool) -> Answer {
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS)
            && clock::monotonic_us() >= self.slice_us + SLICE_US
            && matches!(self.breathe(), Answer::Stop)
        {
            return Answer::Stop;
        }
        match self.execute(request, resp3, journals) {
            Ok(bytes) => Answer::Reply(bytes),
            Err(answer) => answer,
        }
    }

    fn may(&mut self, request: &[Vec<u8>]) -> Answer {
        let args: SmallVec<[&[u8]; 8]> = request.iter().map(Vec::as_slice).collect();
        let Some(command) = args.first().and_then(|name| find(name)) else { return Answer::Stop };
        let user = self.ctx.session.rights.user.as_ref();
        if user.is_none_or(|user| user.check(command, &args, self.ctx.session.db).is_ok()) {
            Answer::Go
        } else {
            Answer::Stop
        }
    }

    /// From the end of its first slice on a script is known to everybody; from `busy-reply-threshold` on its loop looks
    /// after its other clients.
    fn breathe(&mut self) -> Answer {
        let shared = self.ctx.shared;
        let running = self.running.get_or_insert_with(|| {
            let running = Arc::new(Running {
                name: self.code.name(),
                is_function: self.code.is_function(),
                command: self.ctx.args.iter().map(|a| a.to_vec()).collect(),
                since_ms: self.begun_us / 1000,
                state: AtomicU8::new(if self.has_acted { WROTE } else { CLEAN }),
            });
            shared.scripts.enter(&running);
            running
        });
        if shared.scripts.is_abandoned() || shared.state.shutdown.load(Ordering::Acquire) {
            self.end = Some(End::Abandoned);
            return Answer::Stop;
        }
        if !running.is_killed() {
            busy::take_turn();
        }
        self.slice_us = clock::monotonic_us();
        if running.is_killed() {
            self.end = Some(End::Killed);
            return Answer::Stop;
        }
        Answer::Go
    }
}

impl Handler<'_, '_, '_> {
    /// Executes one command: its reply.
    fn execute(
        &mut self,
        request: &[Vec<u8>],
        resp3: bool,
        journals: bool,
    ) -> Result<Vec<u8>, Answer> {
        let args: SmallVec<[&[u8]; 8]> = request.iter().map(Vec::as_slice).collect();
        let command = args.first().and_then(|name| find(name));
        let Some(command) = command else {
            return Err(error("ERR Unknown Redis command called from script"));
        };
        self.reach(command, &args)?;
        self.check(command)?;
        if !command.is(flag::READONLY) {
            if self.running.as_ref().is_some_and(|r| !r.may_write()) {
                self.end = Some(End::Killed);
                return Err(Answer::Stop);
            }
            self.has_acted = true;
        }
        let shared = self.ctx.shared;
        let mut reply = Reply::new(Vec::new(), resp3).within(self.reply_bytes_max);
        self.ctx.db.tells_misses = self.ctx.db.env.events != 0 && events::tells_misses(command);
        self.ctx.db.index = self.ctx.session.db;
        let mut inner = Ctx {
            shared,
            stats: self.ctx.stats,
            session: self.ctx.session,
            reply: &mut reply,
            args: &args,
            db: self.ctx.db,
            command,
            dirty: 0,
            effects: Effects::Verbatim,
            retry: false,
            in_exec: true,
        };
        (command.run)(&mut inner);
        let (dirty, effects) = (inner.dirty, inner.effects);
        self.ctx.db.clear_hint();
        self.dirty += dirty;
        remember(shared, self.ctx.session, command, &args);
        if shared.monitors.any() {
            shared.show(self.ctx.session, command, &args);
        }
        let effects = if journals { effects } else { Effects::Rewritten(Vec::new()) };
        collect(&mut self.out, self.ctx.db, &args, dirty, effects);
        let stats = &self.ctx.stats.calls[command.id()];
        bump(&stats.calls, 1);
        bump(&stats.failed, u64::from(reply.errors > 0));
        if reply.over {
            return Err(error("ERR the reply is larger than a client's output buffer may be"));
        }
        Ok(reply.out)
    }

    /// What refuses a command of a script.
    fn check(&self, command: &'static Command) -> Result<(), Answer> {
        let (shared, from_primary) = (self.ctx.shared, self.ctx.session.from_primary);
        if self.read_only && (command.is(flag::WRITE) || command.is(flag::PUBSUB)) {
            return Err(error("ERR Write commands are not allowed from read-only scripts."));
        }
        if command.is(flag::WRITE) && !from_primary {
            if let Some(text) = shared.state.refuses_write() {
                return Err(error(&text));
            }
            if let Some(text) = shared.quorum.refusal() {
                return Err(error(text));
            }
        }
        if command.is(flag::DENYOOM) && self.is_oom && self.dirty == 0 && !self.flags.allow_oom {
            return Err(error(OOM));
        }
        Ok(())
    }

    /// Makes sure that the slots of a command are held, and in a cluster that they are here.
    fn reach(&mut self, command: &'static Command, args: &[&[u8]]) -> Result<(), Answer> {
        if !command.arity_fits(args.len()) {
            return Err(error("ERR Wrong number of args calling Redis command from script"));
        }
        if command.is(flag::NOSCRIPT) {
            return Err(error("ERR This Redis command is not allowed from script"));
        }
        if !command.is(flag::STALE) && self.ctx.shared.is_stale() {
            return Err(error("ERR Can not execute the command on a stale replica"));
        }
        if self.ctx.session.rights.restricted
            && let Some(text) = self.refusal(command, args)
        {
            let text = text.strip_prefix("NOPERM ").unwrap_or(&text);
            return Err(error(&format!("ERR ACL failure in script: {text}")));
        }
        if command.is(flag::WALKS) || command.locks_all(args) {
            self.code.widen();
            return if self.ctx.db.locked().holds_all() { Ok(()) } else { self.reach_for(None) };
        }
        let slots: SmallVec<[u16; 8]> =
            command.key_positions(args).iter().map(|at| slot_of(args[*at])).collect();
        let is_clustered = self.ctx.shared.cluster.is_enabled();
        if is_clustered && slots.iter().any(|slot| *slot != slots[0]) {
            return Err(error(NOT_LOCAL));
        }
        if !slots.iter().all(|slot| self.declared.contains(slot)) {
            self.code.widen();
        }
        let locked = self.ctx.db.locked();
        if !slots.iter().all(|slot| locked.try_add(*slot)) {
            self.reach_for(Some(&slots))?;
        }
        // Asked under the locks: it cannot change until the script ends.
        let (shared, session) = (self.ctx.shared, &*self.ctx.session);
        if is_clustered && shared.route_script(session, command, args, self.ctx.db).is_err() {
            return Err(error(NOT_LOCAL));
        }
        if is_clustered { slots.iter().try_for_each(|slot| self.bind(*slot)) } else { Ok(()) }
    }

    /// A script may do what its client's user may.
    #[cold]
    fn refusal(&self, command: &'static Command, args: &[&[u8]]) -> Option<String> {
        let (shared, session, now_ms) =
            (self.ctx.shared, &*self.ctx.session, self.ctx.db.env.now_ms);
        acl::refusal(shared, session, command, args, acl::Context::Lua, now_ms)
    }

    /// In a cluster a script with a first line of its own keeps to one slot, unless that line says otherwise.
    fn bind(&mut self, slot: u16) -> Result<(), Answer> {
        let may_cross = self.flags.is_legacy || self.flags.allow_cross_slot_keys;
        if !may_cross && *self.slot.get_or_insert(slot) != slot {
            return Err(error(
                "ERR Script attempted to access keys that do not hash to the same slot",
            ));
        }
        Ok(())
    }

    /// Takes locks that are not free, or every one. See the essay of `script`.
    #[cold]
    fn reach_for(&mut self, slots: Option<&[u16]>) -> Result<(), Answer> {
        let is_clean = !self.has_acted && self.out.is_empty() && !self.ctx.db.has_expired();
        if is_clean && !self.ctx.in_exec {
            self.end = Some(End::Widen);
            return Err(Answer::Stop);
        }
        let shared = self.ctx.shared;
        let begin = clock::monotonic_ms();
        let is_over = |may_be_circle: bool| {
            shared.scripts.is_abandoned()
                || (may_be_circle && clock::monotonic_ms() > begin + CONFLICT_MS)
        };
        let locked = self.ctx.db.locked();
        let taken = match slots {
            Some(slots) => locked.add(slots, is_over),
            None => locked.add_all(is_over),
        };
        if taken {
            return Ok(());
        }
        Err(error(
            "ERR Script attempted to access a key that it had not declared, while another script held it",
        ))
    }

    fn finish(&mut self) -> (Journaled, u64, Option<End>) {
        self.leave();
        let end = self.end.take();
        (std::mem::take(&mut self.out), self.dirty, end)
    }

    fn leave(&mut self) {
        if let Some(running) = self.running.take() {
            let shared = self.ctx.shared;
            shared.scripts.leave(&running);
        }
    }
}

/// A fault of a command's own, too, ends the script for everybody.
impl Drop for Handler<'_, '_, '_> {
    fn drop(&mut self) {
        self.leave();
    }
}
