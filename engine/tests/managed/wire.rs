//! A wire to a server that breaks by itself, for those who say a certain word.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) struct BadWire {
    pub(crate) port: u16,
    cuts: Arc<AtomicUsize>,
}

impl BadWire {
    /// To a port of this machine. A connection on which a client says `word` is cut once the server has said as many bytes as
    /// `limits` has: the first limit until it has cut one, then the next; all others stay whole. A connection that ends by itself
    /// uses up no limit (a busy machine's may).
    pub(crate) fn to(server: u16, word: &'static [u8], limits: &[usize]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (limits, cuts) = (limits.to_vec(), Arc::new(AtomicUsize::new(0)));
        let told = cuts.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                // So many bytes are left; nobody has said the word yet: all that there are.
                let left = Arc::new(AtomicUsize::new(usize::MAX));
                let (to_server, from_server) = (pair(&client, &server), pair(&server, &client));
                let (limits, cut_before, budget) = (limits.clone(), told.clone(), left.clone());
                thread::spawn(move || {
                    copy(to_server, |bytes| {
                        let says = bytes.windows(word.len()).any(|w| w == word);
                        if says && budget.load(Ordering::Acquire) == usize::MAX {
                            let nth = cut_before.load(Ordering::Acquire);
                            let limit = limits.get(nth).copied().unwrap_or(usize::MAX - 1);
                            budget.store(limit, Ordering::Release);
                        }
                        true
                    });
                });
                let told = told.clone();
                thread::spawn(move || {
                    copy(from_server, |bytes| {
                        let now = left.load(Ordering::Acquire);
                        let is_cut = now < bytes.len();
                        if now < usize::MAX - 1 && !is_cut {
                            left.store(now - bytes.len(), Ordering::Release);
                        }
                        told.fetch_add(usize::from(is_cut), Ordering::AcqRel);
                        !is_cut
                    });
                });
            }
        });
        Self { port, cuts }
    }

    /// How many connections were cut so far.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Acquire)
    }
}

fn pair(from: &TcpStream, to: &TcpStream) -> (TcpStream, TcpStream) {
    (from.try_clone().unwrap(), to.try_clone().unwrap())
}

/// Copies until an end is reached, or `goes_on` says no to what came: then both ends hear nothing more.
fn copy((mut from, mut to): (TcpStream, TcpStream), mut goes_on: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !goes_on(&buffer[..read]) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Who is gone already needs not be told.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
