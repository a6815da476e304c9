//! Asking the application of the operator whether a client may subscribe or publish.

use crate::http::client::{CloseHandle, Request as Question, Response as Reply};
use crate::http::grammar::encode;
use crate::http::lock::hold;
use crate::http::{MalformedUrl, Refusal, Request, Status, Url};
use std::collections::{BTreeSet, HashMap};
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The client is answered within this time, whatever the application does.
const DEADLINE: Duration = Duration::from_secs(2);

/// Questions at a time. Another one waits within its deadline.
const QUESTIONS: usize = 64;

/// So many replies are kept, of questions up to this size: 4 MiB at most.
const KEPT_REPLIES: usize = 1024;
const KEPT_BYTES: usize = 4 * 1024;

/// A stream is not looked at for longer.
const LONGEST_AGE: u64 = 365 * 86_400;

/// The thread finds a name and reads a head.
const STACK_BYTES: usize = 256 * 1024;

/// What the application has said of one question, when, and until when that holds.
#[derive(Clone, Copy)]
struct Said {
    status: Status,
    at: Instant,
    until: Option<Instant>,
}

/// A question that waits for its reply.
struct Sent {
    /// The same for the same question only.
    name: String,
    reply: mpsc::Receiver<Option<Reply>>,
    handle: CloseHandle,
}

/// The client does not wait any more.
impl Drop for Sent {
    fn drop(&mut self) {
        self.handle.close();
    }
}

pub(super) struct Authorization {
    url: Url,
    /// How many questions there may be at a time, and how many requests may wait for one.
    most: usize,
    asking: Mutex<Asking>,
    answered: Condvar,
    kept: Mutex<HashMap<String, Said>>,
    pub(super) questions: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) cache_hits: AtomicU64,
}

#[derive(Default)]
struct Asking {
    sent: usize,
    waiting: usize,
}

/// One of the questions at a time.
struct Permit(Arc<Authorization>);

impl Drop for Permit {
    fn drop(&mut self) {
        hold(&self.0.asking).sent -= 1;
        self.0.answered.notify_one();
    }
}

impl Authorization {
    /// For a server with so many connections at a time. While the application hangs, a request that waits for it keeps its
    /// connection for two seconds: half of all connections are left to others.
    pub(super) fn new(url: Url, connections: usize) -> Arc<Authorization> {
        Arc::new(Authorization {
            url,
            most: (connections / 4).clamp(1, QUESTIONS),
            asking: Mutex::default(),
            answered: Condvar::new(),
            kept: Mutex::default(),
            questions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
        })
    }

    /// Whether the client may do what it asks for, and until when; `None` is without an end.
    ///
    /// Each channel has a question of its own: an application that looks at how a list begins would let a client into the
    /// last of its channels. All are sent before the first reply is awaited.
    ///
    /// # Errors
    /// `401` and `403` as the application says. `503` when it says anything else, or nothing in time.
    pub(super) fn ask(
        self: &Arc<Authorization>,
        request: &Request<'_>,
        channels: &str,
    ) -> Result<Option<Instant>, Refusal> {
        let deadline = Instant::now() + DEADLINE;
        let channels = BTreeSet::from_iter(channels.split(','));
        let (mut sent, mut ends) = (Vec::new(), Vec::new());
        let decide = || {
            for channel in channels {
                let (question, name) = self.question(request, channel).map_err(|_| NO_DECISION)?;
                match self.find(&name) {
                    Some(said) => ends.push(said.decision()?),
                    None => sent.push(self.send(question, name, deadline).ok_or(NO_DECISION)?),
                }
            }
            for mut sent in sent {
                ends.push(self.receive(&mut sent, deadline).ok_or(NO_DECISION)?.decision()?);
            }
            Ok(ends.into_iter().flatten().min())
        };
        let decision = decide();
        let has_failed = decision.as_ref().is_err_and(|refusal| *refusal == NO_DECISION);
        self.failures.fetch_add(u64::from(has_failed), Relaxed);
        decision
    }

    fn find(&self, name: &str) -> Option<Said> {
        let kept = hold(&self.kept).get(name).copied();
        let kept = kept.filter(|said| said.until > Some(Instant::now()));
        self.cache_hits.fetch_add(kept.is_some().into(), Relaxed);
        kept
    }

    /// The question, and a text that is the same for the same question only: a field has no line end.
    fn question(&self, request: &Request<'_>, channel: &str) -> Result<(Question, String), MalformedUrl> {
        let (url, method) = (self.url.to_string(), request.method().name());
        let mark = if url.contains('?') { '&' } else { '?' };
        let question = Question::new(&format!("{url}{mark}method={method}&channel={}", encode(channel)))?;
        // The client's own query must not add to ours: of two parameters of one name, some programs take the last.
        let pairs = request.queries().map(|(name, value)| [encode(&name), encode(&value)].join("="));
        let uri = format!("{}?{}", request.path(), pairs.collect::<Vec<_>>().join("&"));
        let mut question = question.field("X-Forwarded-Uri", uri);
        for name in ["Origin", "Cookie", "Authorization"] {
            let values: Vec<&str> = request.values(&name.to_ascii_lowercase()).collect();
            if !values.is_empty() {
                question = question.field(name, values.join("; "));
            }
        }
        question.connect_deadline = DEADLINE;
        question.idle_deadline = Some(DEADLINE);
        let fields = question.fields.iter().map(|(name, value)| format!("\n{name}: {value}"));
        let name = question.url.to_string() + &fields.collect::<String>();
        Ok((question, name))
    }

    /// On a thread of its own: finding a name has no deadline, and a reply byte by byte has one for each byte.
    fn send(self: &Arc<Authorization>, question: Question, name: String, deadline: Instant) -> Option<Sent> {
        self.questions.fetch_add(1, Relaxed);
        let mut asking = hold(&self.asking);
        if asking.sent >= self.most {
            if asking.waiting >= self.most {
                return None;
            }
            asking.waiting += 1;
            let time = deadline.saturating_duration_since(Instant::now());
            let is_full = |asking: &mut Asking| asking.sent >= self.most;
            let waited = self.answered.wait_timeout_while(asking, time, is_full);
            let timeout;
            (asking, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            asking.waiting -= 1;
            if timeout.timed_out() {
                return None;
            }
        }
        asking.sent += 1;
        drop(asking);
        let (permit, handle) = (Permit(Arc::clone(self)), CloseHandle::default());
        let (sender, reply) = mpsc::channel();
        let closed = handle.clone();
        let send = move || {
            let _permit = permit;
            // The client was answered meanwhile if the channel is closed.
            let _ = sender.send(question.send_once(&closed).ok());
        };
        let thread = thread::Builder::new().name("authorize".into()).stack_size(STACK_BYTES);
        thread.spawn(send).ok()?;
        Some(Sent { name, reply, handle })
    }

    fn receive(&self, sent: &mut Sent, deadline: Instant) -> Option<Said> {
        let time = deadline.saturating_duration_since(Instant::now());
        let reply = sent.reply.recv_timeout(time).ok()??;
        let (status, at) = (reply.status, Instant::now());
        let said = Said { status, at, until: max_age(&reply).map(|age| at + age) };
        self.keep(take(&mut sent.name), said);
        Some(said)
    }

    fn keep(&self, name: String, said: Said) {
        let is_decision = said.decision() != Err(NO_DECISION);
        if said.until.is_none() || !is_decision || name.len() > KEPT_BYTES {
            return;
        }
        let mut kept = hold(&self.kept);
        // The oldest one goes. Otherwise a client could fill the cache with keys of its own invention.
        if kept.len() >= KEPT_REPLIES
            && let Some((oldest, _)) = kept.iter().min_by_key(|(_, said)| said.at)
        {
            let oldest = oldest.clone();
            kept.remove(&oldest);
        }
        kept.insert(name, said);
    }
}

impl Said {
    fn decision(self) -> Result<Option<Instant>, Refusal> {
        match self.status.0 {
            200..=299 => Ok(self.until),
            401 | 403 => Err(Refusal::new(self.status, "The application that authorizes has refused.")),
            _ => Err(NO_DECISION),
        }
    }
}

const NO_DECISION: Refusal = Refusal::new(
    Status::SERVICE_UNAVAILABLE,
    "The application that authorizes did not answer as it should; come back later.",
);

/// For how long a reply holds, when it says so. Frameworks send `max-age=0` and `no-store` by themselves: they do not mean
/// that a stream is to end at once, only that the reply is not to be kept.
fn max_age(reply: &Reply) -> Option<Duration> {
    let values = reply.values("cache-control").flat_map(|value| value.split(','));
    let directives: Vec<String> = values.map(|one| one.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|one| one == "no-store" || one == "no-cache") {
        return None;
    }
    let seconds = directives.iter().find_map(|one| one.strip_prefix("max-age="))?.parse().ok()?;
    Some(Duration::from_secs(LONGEST_AGE.min(seconds))).filter(|age| !age.is_zero())
}
