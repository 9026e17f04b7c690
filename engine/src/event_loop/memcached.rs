//! A turn of a Memcached client: its requests are run one by one, and wait as RESP requests do.

use super::EventLoop;
use super::conn::{Conn, TURN_BYTES};
use super::pause::Pause;
use crate::busy;
use crate::command::exec::Executor;
use crate::command::{Command, Keys};
use crate::memcached::{Client, Step, auth};
use crate::resp::Reply;
use crate::session::After;
use crate::topology::slot_of;

impl EventLoop {
    /// Runs the whole requests of a buffer; gives how many bytes they took.
    pub(super) fn process_memcached(
        &mut self,
        conn: &mut Conn,
        buffer: &[u8],
        executor: &mut Executor<'_>,
        budget: &mut usize,
    ) -> usize {
        if busy::is_in_turn() {
            // What reports here counts keys, and so waits for locks.
            self.hold_back(conn);
            return 0;
        }
        let Some(mut protocol) = conn.memcached.take() else { return 0 };
        if self.shared.acl.is_newer(&conn.session.rights) {
            auth::recheck(&self.shared, &mut conn.session);
        }
        let mut reply = Reply::new(std::mem::take(&mut conn.out), false)
            .within(TURN_BYTES.saturating_add(self.hot.reply_bytes_max));
        executor.env.no_touch = false;
        executor.env.sees_expired = false;
        let (pause, held) = (self.pause, self.held_slots.slots.clone());
        let mut at = 0;
        while *budget > 0 && reply.out.len() - conn.sent <= conn.turn_bytes() {
            let holds = |row: &'static Command, key: &[u8]| {
                (pause != Pause::Nobody && pause.holds(Some(row), &[]))
                    || held.as_ref().is_some_and(|slots| {
                        matches!(row.keys, Keys::None) || slots.contains(slot_of(key))
                    })
            };
            let (item_size_max, large) = (self.hot.item_size_max, self.large);
            let (session, reply) = (&mut conn.session, &mut reply);
            let mut client = Client {
                executor,
                session,
                reply,
                holds: &holds,
                item_size_max,
                large,
                refused: None,
            };
            match busy::with(self, || protocol.step(&mut client, buffer, at)) {
                Step::Need => break,
                Step::Done(end) => at = end,
                Step::Held(from) => {
                    at = from;
                    self.hold_back(conn);
                    break;
                }
                Step::Close(end) => {
                    at = end;
                    conn.session.after = After::Close;
                    break;
                }
            }
            *budget -= 1;
            if conn.session.is_blocked() {
                // Another member has its key: what comes behind it waits for that one's answer.
                break;
            }
        }
        conn.memcached = Some(protocol);
        self.settle(conn, reply.out);
        at
    }
}
