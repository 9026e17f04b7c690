//! One Lua state for each thread that runs scripts, and a script's run in it.
//!
//! The state is reached from its own thread only, and runs one script at a time. The interpreter's functions must own
//! what they use, while a command borrows locks and tables: so the handler, which has the borrows, leaves word of
//! itself for the time of the run (`Word`), and is asked from anywhere within the interpreter.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState};

use super::SLICE_US;
use super::api::{self, PRELUDE};
use super::cache::{Hash, Script};
use super::library::{Library, Registered};
use super::pattern::Budget;
use super::random::Generator;
use super::reply;
use crate::clock;
use crate::resp::Reply;

/// Instructions between two looks at the clock while a script uses little memory: less than a hundred microseconds.
const STEP: u32 = 5_000;
/// Bytes that are little. One instruction may copy or compare all that there is (`a .. b`, `a < b`): the more, the fewer
/// go by unseen. That there is more is noticed by the collector's turns (`State::on_collected`).
const LITTLE_BYTES: usize = 1 << 20;
/// Fewest instructions between two looks.
const STEP_MIN: u32 = 16;
/// Steps of host functions between two looks at the clock: less than a hundred microseconds.
const STEPS: usize = 10_000;
/// Compiled scripts that are kept before those that nobody finds any more are looked for.
const COMPILED_MAX: usize = 2 * super::EVAL_CACHE_MAX;

/// What a script is told by its handler.
pub(super) enum Answer {
    Go,
    Reply(Vec<u8>),
    /// End, whatever the script thinks of it.
    Stop,
}

/// The handler of a script, on the other side of the interpreter.
pub(super) trait Handle {
    /// Executes a command. `resp3`: the form of the reply; `journals`: its effects go to the journal.
    fn call(&mut self, request: &[Vec<u8>], resp3: bool, journals: bool) -> Answer;
    /// May the script's user make this request? `Stop`: no.
    fn may(&mut self, request: &[Vec<u8>]) -> Answer;
    /// A slice of time is over.
    fn breathe(&mut self) -> Answer;
}

/// The handler of the run that is under way on this thread.
type Word = NonNull<dyn Handle + 'static>;

thread_local! {
    static WORD: Cell<Option<Word>> = const { Cell::new(None) };
}

/// Puts back what was there before, also behind a fault.
struct Restore(Option<Word>);

impl Drop for Restore {
    fn drop(&mut self) {
        WORD.set(self.0.take());
    }
}

/// Runs `f`, within which `ask` reaches the handler.
fn with_handler<'h, R>(handler: &'h mut (dyn Handle + 'h), f: impl FnOnce() -> R) -> R {
    let word: NonNull<dyn Handle + 'h> = NonNull::from(handler);
    // SAFETY: only the lifetime changes; the word is taken back before this function, and with it the borrow, ends.
    #[expect(
        unsafe_code,
        reason = "the handler is borrowed across the interpreter, which borrows nothing"
    )]
    let word = unsafe { std::mem::transmute::<NonNull<dyn Handle + 'h>, Word>(word) };
    let _restore = Restore(WORD.replace(Some(word)));
    f()
}

/// Asks the handler of the run that is under way; `Go` when there is none: a library is being loaded.
fn ask(question: impl FnOnce(&mut dyn Handle) -> Answer) -> Answer {
    let Some(mut word) = WORD.take() else { return Answer::Go };
    let _restore = Restore(Some(word));
    // SAFETY: `with_handler` holds the borrow, unused, as long as the word is there; it was taken out for this call, so
    // that there is no second one meanwhile.
    #[expect(unsafe_code, reason = "as above")]
    question(unsafe { word.as_mut() })
}

/// Has the handler execute a command.
pub(super) fn ask_call(request: &[Vec<u8>], resp3: bool, journals: bool) -> Answer {
    ask(|handler| handler.call(request, resp3, journals))
}

/// May the script's user make this request?
pub(super) fn ask_may(request: &[Vec<u8>]) -> bool {
    matches!(ask(|handler| handler.may(request)), Answer::Go)
}

/// What host functions share during a run.
pub(super) struct State {
    pub(super) resp3: Cell<bool>,
    pub(super) journals: Cell<bool>,
    pub(super) random: RefCell<Generator>,
    stopped: Cell<bool>,
    /// Where the script was when it was ended.
    place: RefCell<Option<(String, usize)>>,
    slice_us: Cell<u64>,
    /// Steps of host functions since one has looked at the clock.
    steps: Cell<usize>,
    /// Instructions between two calls of the hook.
    step: Cell<u32>,
    memory_max: Cell<usize>,
    /// A library that is being loaded puts its functions here.
    pub(super) registering: RefCell<Option<Vec<Registered>>>,
    /// Until when it may take, monotonic microseconds; 0: nothing is being loaded.
    deadline_us: Cell<u64>,
}

impl Budget for State {
    fn spend(&self, steps: usize) -> bool {
        let steps = self.steps.get() + steps;
        self.steps.set(if steps >= STEPS { 0 } else { steps });
        steps < STEPS || self.breathe()
    }
}

impl State {
    fn new() -> State {
        State {
            resp3: Cell::new(false),
            journals: Cell::new(true),
            random: RefCell::new(Generator::new(crate::random::next() as i32)),
            stopped: Cell::new(false),
            place: RefCell::new(None),
            slice_us: Cell::new(0),
            steps: Cell::new(0),
            step: Cell::new(STEP),
            memory_max: Cell::new(0),
            registering: RefCell::new(None),
            deadline_us: Cell::new(0),
        }
    }

    /// Bytes that the interpreter may still take.
    pub(super) fn room(&self, lua: &Lua) -> usize {
        self.memory_max.get().saturating_sub(lua.used_memory())
    }

    /// Ends the script: from now on every instruction is an error, so that no `pcall` goes on
    /// (see: a_script_that_catches_every_error_is_killed).
    pub(super) fn stop(&self, lua: &Lua) -> mlua::Result<()> {
        self.stopped.set(true);
        self.place.replace(api::place(lua));
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(1), |_, _| Err(ended()))
    }

    fn on_hook(self: &Rc<State>, lua: &Lua) -> mlua::Result<VmState> {
        if self.stopped.get() {
            self.stop(lua)?;
            return Err(ended());
        }
        if !self.breathe() {
            return self.stop(lua).and(Err(ended()));
        }
        self.adapt(lua, step_for(lua.used_memory()))?;
        Ok(VmState::Continue)
    }

    /// The collector was there: much was allocated since it was there last. It may not be interrupted: if time is up,
    /// the next instruction is.
    pub(super) fn on_collected(self: &Rc<State>, lua: &Lua) -> mlua::Result<()> {
        if self.stopped.get() {
            return Ok(());
        }
        let is_due = clock::monotonic_us() >= self.slice_us.get() + SLICE_US;
        self.adapt(lua, if is_due { 1 } else { step_for(lua.used_memory()) })
    }

    /// Each coroutine counts by itself: where the count is not the usual one it is set whenever one is come across.
    fn adapt(self: &Rc<State>, lua: &Lua, step: u32) -> mlua::Result<()> {
        if step == STEP && self.step.get() == STEP {
            return Ok(());
        }
        self.arm(lua, step)
    }

    fn arm(self: &Rc<State>, lua: &Lua, step: u32) -> mlua::Result<()> {
        self.step.set(step);
        let state = self.clone();
        let triggers = HookTriggers::new().every_nth_instruction(step);
        lua.set_global_hook(triggers, move |lua, _| state.on_hook(lua))
    }

    /// Looks at the clock, for whatever takes long; `false`: the script is to be ended (see `stop`).
    pub(super) fn breathe(&self) -> bool {
        if clock::monotonic_us() < self.slice_us.get() + SLICE_US {
            return true;
        }
        let goes_on = !matches!(ask(|handler| handler.breathe()), Answer::Stop);
        let (now_us, deadline_us) = (clock::monotonic_us(), self.deadline_us.get());
        self.slice_us.set(now_us);
        goes_on && (deadline_us == 0 || now_us < deadline_us)
    }
}

/// Instructions between two looks at the clock: a power of two of the fewest, so that it seldom changes.
fn step_for(used_bytes: usize) -> u32 {
    let times = (used_bytes / LITTLE_BYTES) as u32;
    let step = STEP / times.max(1).next_power_of_two();
    step.max(STEP_MIN)
}

fn ended() -> mlua::Error {
    mlua::Error::RuntimeError("the script is being ended".into())
}

/// What is to be run.
#[derive(Clone)]
pub(super) enum What {
    Script(Arc<Script>),
    Function(Arc<Library>, Vec<u8>),
}

impl What {
    /// What errors and FUNCTION STATS call it.
    pub(super) fn name(&self) -> String {
        match self {
            What::Script(script) => script.name(),
            What::Function(_, name) => String::from_utf8_lossy(name).into_owned(),
        }
    }
}

/// A run, with all that it owns.
pub(super) struct Job {
    pub(super) what: What,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
    /// The form of the reply, and the most bytes of it.
    pub(super) resp3: bool,
    pub(super) reply_bytes_max: usize,
}

/// How a run ended.
pub(super) struct Done {
    pub(super) reply: Reply,
    /// Ended by `Answer::Stop`, and where it was then.
    pub(super) stopped: Option<Option<(String, usize)>>,
}

/// Functions of a library by their names.
type Functions = HashMap<Vec<u8>, Function>;

pub(super) struct Interpreter {
    lua: Lua,
    state: Rc<State>,
    run: Function,
    globals: Table,
    environment: Table,
    load_library: Function,
    tidy: Function,
    quiet: Function,
    compiled: RefCell<HashMap<Hash, (Weak<Script>, Function)>>,
    /// By their place in memory, which nobody else has as long as there is a `Weak`.
    libraries: RefCell<HashMap<usize, (Weak<Library>, Functions)>>,
    is_running: Cell<bool>,
}

thread_local! {
    static MINE: RefCell<Option<Rc<Interpreter>>> = const { RefCell::new(None) };
}

/// The interpreter of this thread, made at the first script.
pub(super) fn mine(memory_max: usize) -> mlua::Result<Rc<Interpreter>> {
    MINE.with_borrow_mut(|mine| {
        if let Some(interpreter) = mine {
            interpreter.limit(memory_max)?;
            return Ok(interpreter.clone());
        }
        let made = Rc::new(Interpreter::new(memory_max)?);
        *mine = Some(made.clone());
        Ok(made)
    })
}

/// Forgets the interpreter of this thread with all that it holds; one is made anew when it is needed.
pub(super) fn forget_mine() {
    MINE.with_borrow_mut(|mine| {
        if mine.as_ref().is_some_and(|i| !i.is_running.get()) {
            *mine = None;
        }
    });
}

impl Interpreter {
    fn new(memory_max: usize) -> mlua::Result<Interpreter> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        Interpreter::around(lua, memory_max)
    }

    /// Makes a state with the language's own libraries one of scripts.
    pub(super) fn around(lua: Lua, memory_max: usize) -> mlua::Result<Interpreter> {
        let state = Rc::new(State::new());
        let prelude = lua.load(include_str!("prelude.lua")).set_name(PRELUDE);
        let parts: Table = prelude.call(api::host(&lua, &state)?)?;
        let environment: Table = parts.raw_get("environment")?;
        lua.set_globals(environment.clone())?;
        let made = Interpreter {
            lua,
            state,
            run: parts.raw_get("run")?,
            globals: parts.raw_get("globals")?,
            environment,
            load_library: parts.raw_get("load_library")?,
            tidy: parts.raw_get("tidy")?,
            quiet: parts.raw_get("quiet")?,
            compiled: RefCell::default(),
            libraries: RefCell::default(),
            is_running: Cell::new(false),
        };
        made.limit(memory_max)?;
        made.arm()?;
        Ok(made)
    }

    fn limit(&self, memory_max: usize) -> mlua::Result<()> {
        if self.state.memory_max.replace(memory_max) != memory_max {
            self.lua.set_memory_limit(memory_max)?;
        }
        Ok(())
    }

    fn arm(&self) -> mlua::Result<()> {
        self.state.arm(&self.lua, STEP)
    }

    #[cfg(test)]
    pub(super) fn lua(&self) -> &Lua {
        &self.lua
    }

    pub(super) fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Compiles a script, unless it is; the error is the compiler's.
    pub(super) fn compile(&self, script: &Arc<Script>) -> Result<Function, String> {
        if let Some((_, function)) = self.compiled.borrow().get(&script.hash) {
            return Ok(function.clone());
        }
        let function = self.compile_text(&script.source, "@user_script")?;
        let mut compiled = self.compiled.borrow_mut();
        if compiled.len() >= COMPILED_MAX {
            compiled.retain(|_, (script, _)| script.strong_count() > 0);
        }
        compiled.insert(script.hash, (Arc::downgrade(script), function.clone()));
        Ok(function)
    }

    fn compile_text(&self, source: &[u8], name: &str) -> Result<Function, String> {
        // The first line may be for the server; the lines are counted with it.
        let body = match source.strip_prefix(b"#!") {
            Some(rest) => memchr::memchr(b'\n', rest).map_or(b"".as_slice(), |at| &rest[at..]),
            None => source,
        };
        if body.first() == Some(&0x1b) {
            let shown = name.trim_start_matches('@');
            return Err(format!("{shown}:1: unexpected symbol near 'char(27)'"));
        }
        self.lua
            .load(body)
            .set_name(name)
            .set_mode(mlua::chunk::ChunkMode::Text)
            .set_environment(self.environment.clone())
            .into_function()
            .map_err(|error| match error {
                mlua::Error::SyntaxError { message, .. } => message,
                mlua::Error::MemoryError(_) => "not enough memory".into(),
                other => other.to_string(),
            })
    }

    /// Runs the code of a library for a time at most: the functions that it registered.
    pub(super) fn load_library(
        &self,
        source: &[u8],
        limit_ms: u64,
    ) -> Result<Vec<Registered>, String> {
        if self.is_running.replace(true) {
            return Err("Error registering functions: another script runs".into());
        }
        let _ends = Ends(&self.is_running);
        self.register(source, clock::monotonic_us() + limit_ms * 1000)
    }

    /// `deadline_us`: 0 for none, where the run that is under way can be ended.
    fn register(&self, source: &[u8], deadline_us: u64) -> Result<Vec<Registered>, String> {
        let function = self
            .compile_text(source, "@user_function")
            .map_err(|error| format!("Error compiling function: {error}"))?;
        self.begin();
        self.state.deadline_us.set(deadline_us);
        self.state.registering.replace(Some(Vec::new()));
        let result = self.load_library.call::<(bool, Value)>(function);
        let registered = self.state.registering.take().unwrap_or_default();
        self.state.deadline_us.set(0);
        let is_stopped = self.state.stopped.get();
        self.end();
        let error = match result {
            _ if is_stopped => "ERR FUNCTION LOAD timeout".into(),
            Ok((true, _)) => return Ok(registered),
            Ok((false, error)) => raised(&error),
            Err(error) => one_line(&error),
        };
        Err(format!("Error registering functions: {error}"))
    }

    /// What a job is to run; the error is a whole line.
    fn function(&self, what: &What) -> Result<Function, String> {
        match what {
            What::Script(script) => self
                .compile(script)
                .map_err(|e| format!("ERR Error compiling script (new function): {e}")),
            What::Function(library, name) => {
                let key = Arc::as_ptr(library) as usize;
                if let Some((_, functions)) = self.libraries.borrow().get(&key)
                    && let Some(function) = functions.get(name)
                {
                    return Ok(function.clone());
                }
                let registered =
                    self.register(&library.source, 0).map_err(|error| format!("ERR {error}"))?;
                let functions: Functions =
                    registered.into_iter().map(|r| (r.name, r.callback)).collect();
                let found = functions.get(name).cloned();
                let mut libraries = self.libraries.borrow_mut();
                libraries.retain(|_, (kept, _)| kept.strong_count() > 0);
                libraries.insert(key, (Arc::downgrade(library), functions));
                found.ok_or_else(|| "ERR Function not found".into())
            }
        }
    }

    fn begin(&self) {
        self.state.resp3.set(false);
        self.state.journals.set(true);
        self.state.stopped.set(false);
        self.state.slice_us.set(clock::monotonic_us());
    }

    fn end(&self) {
        if self.state.stopped.replace(false) {
            // Without a hook there would be no end to the next script: a failure shows at its start.
            let _ = self.arm();
        }
        let _ = self.tidy.call::<()>(());
        if self.lua.used_memory() > self.state.memory_max.get() / 2 {
            let _ = self.lua.gc_collect();
        }
    }

    /// Runs a script; nothing while another one is under way on this thread.
    pub(super) fn run(&self, job: &Job, handler: &mut dyn Handle) -> Option<Done> {
        if self.is_running.replace(true) {
            return None;
        }
        let _ends = Ends(&self.is_running);
        Some(with_handler(handler, || self.job(job)))
    }

    fn strings(&self, words: &[Vec<u8>]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(words.len(), 0)?;
        for (at, word) in words.iter().enumerate() {
            table.raw_set(at + 1, self.lua.create_string(word)?)?;
        }
        Ok(table)
    }

    fn job(&self, job: &Job) -> Done {
        let mut reply = Reply::new(Vec::new(), job.resp3).within(job.reply_bytes_max);
        match self.function(&job.what) {
            Err(error) => reply.error(&error),
            Ok(function) => {
                self.begin();
                let result = self.call(job, function);
                if !self.state.stopped.get() {
                    self.answer(job, result, &mut reply);
                }
            }
        }
        let stopped = self.state.stopped.get().then(|| self.state.place.take());
        self.end();
        Done { reply, stopped }
    }

    fn call(&self, job: &Job, function: Function) -> mlua::Result<(bool, Value)> {
        let (keys, args) = (self.strings(&job.keys)?, self.strings(&job.args)?);
        let is_script = matches!(job.what, What::Script(_));
        for (name, words) in [("KEYS", &keys), ("ARGV", &args)] {
            self.globals.raw_set(name, is_script.then_some(words))?;
        }
        if is_script { self.run.call(function) } else { self.run.call((function, keys, args)) }
    }

    fn answer(&self, job: &Job, result: mlua::Result<(bool, Value)>, reply: &mut Reply) {
        let name = job.what.name();
        match result {
            Ok((true, value)) => {
                if !reply::from_lua(reply, &value, self.state.resp3.get(), &*self.state) {
                    self.state.stopped.set(true);
                }
            }
            Ok((false, Value::Table(error))) => {
                let mut text = match error.raw_get::<Value>("err") {
                    Ok(value) => api::text(&value).unwrap_or_else(|| b"ERR unknown error".to_vec()),
                    Err(_) => b"ERR unknown error".to_vec(),
                };
                if let (Ok(Value::String(source)), Ok(line)) =
                    (error.raw_get::<Value>("source"), error.raw_get::<i64>("line"))
                {
                    text.extend_from_slice(format!(" script: {name}, on ").as_bytes());
                    text.extend_from_slice(&source.as_bytes());
                    text.extend_from_slice(format!(":{line}.").as_bytes());
                }
                reply::write_error(reply, &text);
            }
            Ok((false, other)) => {
                let text = told(&other);
                reply.error(&format!("ERR Error running script {name}, {text}"));
            }
            Err(error) => {
                reply.error(&format!("ERR Error running script {name}, {}", one_line(&error)));
            }
        }
    }
}

/// The text of what a script raised, without its code where that says nothing.
fn told(value: &Value) -> String {
    let text = raised(value);
    text.strip_prefix("ERR ").unwrap_or(&text).to_string()
}

fn raised(value: &Value) -> String {
    let text = match value {
        Value::Table(table) => table.raw_get::<Value>("err").ok().as_ref().and_then(api::text),
        Value::Error(error) => return one_line(error),
        other => api::text(other),
    };
    let text = text.unwrap_or_else(|| b"execution failure".to_vec());
    String::from_utf8_lossy(&text).into_owned()
}

fn one_line(error: &mlua::Error) -> String {
    match error {
        mlua::Error::MemoryError(_) => "not enough memory".into(),
        mlua::Error::CallbackError { cause, .. } => one_line(cause),
        other => other.to_string().lines().next().unwrap_or_default().to_string(),
    }
}

/// Nothing of the interpreter is called any more while it is taken apart.
impl Drop for Interpreter {
    fn drop(&mut self) {
        let _ = self.quiet.call::<()>(());
    }
}

/// The end of a run, also by a fault.
struct Ends<'i>(&'i Cell<bool>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
