//! Reading many objects of a collection: one list, one watch from there, and answers from what they said.
//!
//! The watch goes on in the background for as long as the connection lives. It is taken up again where it ended, and
//! never by force: what cannot be taken up again at once is listed anew by whoever asks next, and while that fails too,
//! objects are asked for one by one, so that a failure is told as what it is.

use crate::client::Client;
use crate::errors::{Error, Problem};
use crate::key::Key;
use crate::kinds::Kind;
use crate::mirror::{Heard, Mirror, Reflection};
use crate::request::{self, Selection};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long a watch must have lasted to be taken up again when it said nothing.
const LASTING: Duration = Duration::from_secs(1);

impl Client {
    /// Reads an object as [`Client::get`] does; where many of its collection are asked for, from the mirror of that.
    ///
    /// That it is missing in the list of the collection is `enough` for what nobody has made yet: a create fails on what
    /// exists all the same. Of anything else an absence is either what the server said of this object, or asked for.
    ///
    /// # Errors
    ///
    /// Those of [`Client::get`].
    pub(crate) async fn look(&self, kind: &Kind, key: &Key, enough: bool) -> Result<Option<Value>, Error> {
        let mirror = self.mirror(kind, key);
        let mut seen = mirror.reflect(&key.name);
        if seen == Reflection::Stale {
            self.renew(&mirror, kind, key).await;
            seen = mirror.reflect(&key.name);
        }
        match seen {
            Reflection::There(object) => return Ok(Some(object)),
            Reflection::Deleted => return Ok(None),
            Reflection::Missing if enough => return Ok(None),
            Reflection::Missing | Reflection::Unknown | Reflection::Stale => {}
        }
        let there = self.get(kind, key).await?;
        if let Some(there) = &there {
            mirror.returned(there);
        }
        Ok(there)
    }

    /// Lists a collection anew, and watches it from there.
    async fn renew(&self, mirror: &Arc<Mirror>, kind: &Kind, key: &Key) {
        let _one_at_a_time = mirror.listing.lock().await;
        if mirror.reflect(&key.name) != Reflection::Stale {
            return;
        }
        let namespace = key.namespace.as_deref().filter(|_| kind.namespaced);
        let asked = Instant::now();
        match self.whole(mirror, kind, namespace).await {
            Ok(Some((items, version))) => {
                if let Some(list) = mirror.listed(kind, items, &version, asked) {
                    let follow = Follow {
                        client: self.raw(),
                        mirror: Arc::downgrade(mirror),
                        list,
                        kind: kind.clone(),
                        namespace: namespace.map(str::to_owned),
                    };
                    mirror.watched_by(tokio::spawn(follow.on(version)).abort_handle());
                }
            }
            Ok(None) => {}
            Err(error) if error.problem == Problem::Forbidden => mirror.give_up(),
            Err(_) => mirror.rest(),
        }
    }

    /// Reads all pages of a list, and the version that they show; nothing when it is not worth it.
    async fn whole(
        &self,
        mirror: &Mirror,
        kind: &Kind,
        namespace: Option<&str>,
    ) -> Result<Option<(Vec<Value>, String)>, Error> {
        let (mut what, mut all, mut version) = (Selection::default(), Vec::new(), String::new());
        let mut expired = false;
        loop {
            let page = match self.page(kind, namespace, &what).await {
                // The other pages are forgotten by now, and those of another version would not go with the first.
                Err(error) if error.problem == Problem::Stale && !expired && !what.from.is_empty() => {
                    expired = true;
                    what.from.clear();
                    all.clear();
                    continue;
                }
                page => page?,
            };
            if what.from.is_empty() {
                version = page.version;
                if !mirror.is_worth(page.remaining) {
                    return Ok(None);
                }
            }
            all.extend(page.items);
            what.from = page.next;
            if what.from.is_empty() {
                return Ok(Some((all, version)));
            }
        }
    }
}

/// The watch of one list.
struct Follow {
    client: kube::Client,
    mirror: Weak<Mirror>,
    list: u64,
    kind: Kind,
    namespace: Option<String>,
}

/// How a watch ended.
enum End {
    /// In time, or the connection did: it is taken up again from where it was.
    Open,
    /// It may not be opened at all.
    Refused,
    /// It cannot be taken up again.
    Lost,
}

impl Follow {
    async fn on(self, mut version: String) {
        loop {
            match self.once(&mut version).await {
                End::Open => {}
                End::Refused => {
                    if let Some(mirror) = self.mirror.upgrade() {
                        mirror.give_up();
                    }
                    return;
                }
                End::Lost => {
                    if let Some(mirror) = self.mirror.upgrade() {
                        mirror.lost(self.list);
                    }
                    return;
                }
            }
        }
    }

    /// Watches until the watch ends; `version` is then the last that was heard of.
    async fn once(&self, version: &mut String) -> End {
        let (opened, mut heard) = (Instant::now(), false);
        let request = request::watch(&self.kind, self.namespace.as_deref(), version);
        let opening = self.client.send(request.map(kube::client::Body::from));
        let Ok(Ok(answer)) = tokio::time::timeout(crate::client::TIMEOUT, opening).await else { return End::Lost };
        match answer.status().as_u16() {
            200 => {}
            403 | 405 => return End::Refused,
            _ => return End::Lost,
        }
        let mut body = answer.into_body();
        let mut line = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            for piece in data.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(piece);
                if !line.ends_with(b"\n") {
                    continue;
                }
                let Some(mirror) = self.mirror.upgrade() else { return End::Lost };
                let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                line.clear();
                match mirror.hear(self.list, &event) {
                    (Heard::Yes, Some(next)) => *version = next,
                    (Heard::Yes, None) => {}
                    (Heard::Lost, _) => return End::Lost,
                }
                heard = true;
            }
        }
        if heard || opened.elapsed() >= LASTING { End::Open } else { End::Lost }
    }
}
