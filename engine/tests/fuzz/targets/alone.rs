//! A server without sockets and threads: its requests are run on the thread that asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::clock;
use engine::command::exec::Executor;
use engine::config::Config;
use engine::disk::RealDisk;
use engine::event_loop::forget;
use engine::persist::load;
use engine::resp::{Decoder, Limits, Reply, frame::Frame};
use engine::server::Shared;
use engine::session::{ClientInfo, Session};
use engine::start;
use engine::tls::Tls;

/// Settings under which no input takes much memory.
const SETTINGS: &[&str] = &[
    "--maxmemory",
    "64mb",
    "--databases",
    "2",
    "--proto-max-bulk-len",
    "1mb",
    "--enable-debug-command",
    "yes",
    "--save",
    "",
];

pub(super) struct Alone {
    pub(super) shared: Arc<Shared>,
}

impl Alone {
    pub(super) fn new() -> Alone {
        let args: Vec<String> = SETTINGS.iter().map(|word| (*word).to_owned()).collect();
        let config = Config::from_args(&args).unwrap();
        let tls = Tls::open(&config).unwrap();
        let (shared, _) = start::share(config, Arc::new(RealDisk), tls, 1).unwrap();
        shared.state.started.store(true, Ordering::Release);
        shared.journal.set_active(true);
        shared.journal.set_keep(16 << 20);
        Alone { shared }
    }

    pub(super) fn executor(&self) -> Executor<'_> {
        let mut executor = load::executor(&self.shared);
        executor.env.sees_expired = false;
        executor.mono_ms = clock::monotonic_ms();
        executor
    }

    /// A client that may do anything.
    pub(super) fn client(&self) -> Session {
        let id = self.shared.clients.next_id();
        let info = ClientInfo::new(
            id,
            "127.0.0.1:1".into(),
            "127.0.0.1:2".into(),
            clock::unix_ms(),
            0,
            id as usize,
        );
        let info = Arc::new(info);
        self.shared.clients.add(&info);
        let mut session = Session::new(info, true);
        self.shared.acl.refresh(&mut session);
        session
    }

    pub(super) fn end(&self, mut session: Session) {
        forget(&self.shared, &mut session);
    }

    /// The sum of all data as of that moment.
    pub(super) fn digest(&self, now_ms: i64) -> Vec<u8> {
        let (mut executor, mut session) = (self.executor(), self.client());
        executor.env.now_ms = now_ms;
        let mut reply = Reply::new(Vec::new(), false);
        load::execute(&mut executor, &mut session, &mut reply, &[b"DEBUG", b"DIGEST"]);
        self.end(session);
        reply.out
    }

    /// What was written since the server was tidied.
    pub(super) fn journal(&self) -> Vec<u8> {
        let mut journal = Vec::new();
        self.shared.journal.read(0, usize::MAX, &mut journal);
        journal
    }

    /// The same server for the next input: no data, no letters to clients that have gone, nobody waits. What writes
    /// past the journal empties it itself: a look at every table costs more than most inputs.
    pub(super) fn tidy(&self) {
        let shared = &self.shared;
        if shared.journal.end() > 0 {
            load::empty(shared);
            shared.journal.reset(0);
        }
        shared.state.clients_paused_until_ms.store(0, Ordering::Release);
        for handle in &shared.loops {
            handle.mail.lock().unwrap().clear();
        }
    }
}

/// Replies are whole, one after the other.
pub(super) fn check_replies(replies: &[u8]) {
    let mut at = 0;
    while at < replies.len() {
        let end = Frame::default().end(&replies[at..]);
        match end {
            Ok(Some(length)) => at += length,
            other => panic!("{other:?} in b\"{}\"", replies[at..].escape_ascii()),
        }
    }
}

/// What a request in a buffer is given to: its words; `false`: no more of them.
pub(super) fn each_request(input: &[u8], mut take: impl FnMut(&[&[u8]]) -> bool) {
    let limits = Limits { authenticated: true, bulk_bytes_max: 1 << 20 };
    let (mut decoder, mut at) = (Decoder::default(), 0);
    while let Ok(Some(end)) = decoder.next(input, at, limits) {
        at = end;
        let words = decoder.unquoted.iter().map(Vec::as_slice);
        let args: Vec<&[u8]> =
            decoder.args.iter().map(|(a, b)| &input[*a..*b]).chain(words).collect();
        if !args.is_empty() && !take(&args) {
            return;
        }
    }
}
