//! Where a member is: what DNS says of its name, or, while that says nothing, where the member was last heard.
//!
//! A failover must not hang on DNS, which may be down together with what failed. An address that is another's by now does
//! no harm: who answers shows its certificate and tells its ID.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a link waits for DNS when it knows another way. (The system's resolver may take half a minute.)
const LOOKUP_MAX: Duration = Duration::from_millis(500);

/// Where to dial.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) addresses: Vec<SocketAddr>,
    /// By DNS: who refuses a connection there is gone. Where a member was heard others may be by now, or a router.
    pub(super) is_said: bool,
}

/// The name of one member, `host:port`.
pub(super) struct Name {
    addr: String,
    /// One question at a time, however often it is asked meanwhile: each takes a thread.
    asked: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Name {
    pub(super) fn new(addr: String) -> Self {
        Self { addr, asked: None }
    }

    /// Where to dial; `heard_at`: the address at which the member was heard, if it was.
    ///
    /// # Errors
    /// What DNS said, when there is no other way.
    pub(super) async fn addresses(&mut self, heard_at: Option<IpAddr>) -> io::Result<Found> {
        let said = self.ask().await;
        match (said, heard_at.zip(self.port())) {
            (Ok(found), _) if !found.is_empty() => Ok(Found { addresses: found, is_said: true }),
            (_, Some((ip, port))) => {
                Ok(Found { addresses: vec![SocketAddr::new(ip, port)], is_said: false })
            }
            (Ok(_), None) => Err(io::Error::other("the name has no address")),
            (Err(error), None) => Err(error),
        }
    }

    async fn ask(&mut self) -> io::Result<Vec<SocketAddr>> {
        let addr = self.addr.clone();
        let asked = self.asked.get_or_insert_with(|| {
            tokio::spawn(async move { Ok(lookup_host(addr).await?.collect()) })
        });
        // It goes on when its time is over: the next one who asks may find the answer.
        let said = timeout(LOOKUP_MAX, &mut *asked).await;
        let said = said.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "DNS is silent"))?;
        self.asked = None;
        said.map_err(io::Error::other)?
    }

    fn port(&self) -> Option<u16> {
        self.addr.rsplit_once(':')?.1.parse().ok()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_dns_does_not_know_leads_to_where_its_member_was_heard() {
        let at = IpAddr::from([127, 0, 0, 7]);
        let mut unknown = Name::new("nobody.invalid:16379".into());
        let found = unknown.addresses(Some(at)).await.unwrap();
        let there = vec![SocketAddr::new(at, 16379)];
        assert_eq!(found, Found { addresses: there, is_said: false });
        assert!(unknown.addresses(None).await.is_err());
    }

    #[tokio::test]
    async fn what_dns_says_comes_first() {
        let mut known = Name::new("127.0.0.1:16379".into());
        let found = known.addresses(Some(IpAddr::from([127, 0, 0, 7]))).await.unwrap();
        let there = vec![SocketAddr::from(([127, 0, 0, 1], 16379))];
        assert_eq!(found, Found { addresses: there, is_said: true });
    }
}
