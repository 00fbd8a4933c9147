//! Lists: consistent, in pages, now or at a revision.

use std::ops::Bound;
use std::sync::Arc;

use kube1_api::selector::{FieldSelector, LabelSelector};
use kube1_api::status::Status;

use super::collection::Collection;
use super::map::{Key, ObjectMap};
use super::object::Object;
use super::token::Token;
use crate::options::{ListOptions, VersionMatch};

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    pub items: Vec<Arc<Object>>,
    /// resourceVersion of the list.
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    /// How many objects follow, when that is known.
    pub remaining: Option<u64>,
}

impl ListPage {
    /// Of a list without a limit, the items that `keep` says, and of those no more than `limit` (0: all).
    pub fn select(mut self, keep: &[bool], limit: u64) -> Self {
        let mut keep = keep.iter();
        self.items.retain(|_| keep.next() == Some(&true));
        let limit = usize::try_from(limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
        if self.items.len() > limit {
            self.items.truncate(limit);
            let token = self.items.last().map(|last| {
                let (namespace, name) = (last.namespace().to_owned(), last.name().to_owned());
                Token { revision: Some(self.revision), namespace, name }.encode()
            });
            self.continue_token = token.unwrap_or_default();
        }
        self.remaining = None;
        self
    }
}

/// A whole list that is looked through while it is sent: until then it costs no more than the state's snapshot.
pub struct ListScan {
    view: View,
    namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    /// The last object that was handed out.
    last: Option<Arc<Object>>,
}

impl ListScan {
    /// resourceVersion of the list.
    pub fn revision(&self) -> u64 {
        self.view.revision
    }

    /// The next objects, so many that their JSON has `bytes`; fewer only at the end.
    pub fn next_objects(&mut self, bytes: usize) -> Vec<Arc<Object>> {
        let after = self.last.as_ref().map(|last| Key { namespace: last.namespace(), name: last.name() });
        let rest = self.view.objects.range(self.namespace.as_deref(), after.map_or(Bound::Unbounded, Bound::Excluded));
        let (mut found, mut size) = (Vec::new(), 0);
        for object in rest.filter(|object| object.matches(&self.labels, &self.fields)) {
            size += object.json().len();
            found.push(object.clone());
            if size >= bytes {
                break;
            }
        }
        self.last = found.last().cloned().or(self.last.take());
        found
    }
}

/// The state a list shows.
struct View {
    objects: ObjectMap,
    revision: u64,
}

/// The state a list wants.
enum Wanted {
    Newest,
    NotOlderThan(u64),
    Exactly(u64),
}

impl Collection {
    /// Lists one namespace or, with `None`, everything.
    ///
    /// Fails with 410 when the asked state is forgotten and 504 when it does not come in time.
    pub async fn list(&self, namespace: Option<&str>, options: &ListOptions) -> Result<ListPage, Status> {
        let (view, token) = self.view(namespace, options).await?;
        Ok(page(&view, namespace, options, token.as_ref()))
    }

    /// The same for all objects that match, from the first one on: limit and continuation do not count.
    pub async fn scan(&self, namespace: Option<&str>, options: &ListOptions) -> Result<ListScan, Status> {
        let (view, _) = self.view(namespace, options).await?;
        let (labels, fields) = (options.labels.clone(), options.fields.clone());
        Ok(ListScan { view, namespace: namespace.map(str::to_owned), labels, fields, last: None })
    }

    async fn view(&self, namespace: Option<&str>, options: &ListOptions) -> Result<(View, Option<Token>), Status> {
        let token = match options.continue_token.as_str() {
            "" => None,
            text => Some(Token::decode(text)?),
        };
        if token.is_some() && options.resource_version.is_some_and(|v| v != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let view = match wanted(options, token.as_ref()) {
            Wanted::Newest => self.newest(namespace, &options.fields),
            Wanted::NotOlderThan(revision) => {
                self.clock.wait_for(revision).await?;
                self.newest(namespace, &options.fields)
            }
            Wanted::Exactly(revision) => {
                self.clock.wait_for(revision).await?;
                self.at(revision).ok_or_else(|| expired(token.as_ref()))?
            }
        };
        let index = self.indexed.filter(|field| options.fields.exact(field).is_some()).unwrap_or_default();
        self.meters.listed(index, view.objects.len());
        Ok((view, token))
    }

    /// The newest state, reduced to where the selector can match.
    fn newest(&self, namespace: Option<&str>, fields: &FieldSelector) -> View {
        // Read before the state: all changes up to it are in the state.
        let published = self.clock.published();
        let state = self.state.read();
        let revision = published.max(state.revision);
        let by_name = fields.exact("metadata.name");
        let by_index = self.indexed.and_then(|field| fields.exact(field)).filter(|value| !value.is_empty());
        let objects = match (by_name, by_index, namespace) {
            (Some(name), _, namespace) if namespace.is_some() || self.is_cluster_scoped(&state.objects) => {
                let mut one = ObjectMap::default();
                if let Some(object) = state.objects.get(Key { namespace: namespace.unwrap_or_default(), name }) {
                    one.insert(object.clone());
                }
                one
            }
            (_, Some(value), _) => state.index.get(value).cloned().unwrap_or_default(),
            _ => state.objects.clone(),
        };
        View { objects, revision }
    }

    fn is_cluster_scoped(&self, objects: &ObjectMap) -> bool {
        objects.range(None, Bound::Unbounded).next().is_none_or(|o| o.namespace().is_empty())
    }

    /// The state at a revision: the newest one with later changes undone. `None` when they are forgotten.
    fn at(&self, revision: u64) -> Option<View> {
        let state = self.state.read();
        if revision < state.floor || revision < self.clock.compacted() {
            return None;
        }
        let mut objects = state.objects.clone();
        let later: Vec<_> = state.since(revision).rev().cloned().collect();
        drop(state);
        for change in later {
            match &change.previous {
                Some(previous) => objects.insert(previous.clone()),
                None => objects.remove(Key { namespace: change.object.namespace(), name: change.object.name() }),
            };
        }
        Some(View { objects, revision })
    }
}

fn wanted(options: &ListOptions, token: Option<&Token>) -> Wanted {
    if let Some(token) = token {
        return token.revision.map_or(Wanted::Newest, Wanted::Exactly);
    }
    match (options.resource_version, options.version_match) {
        (None | Some(0), _) => Wanted::Newest,
        (Some(revision), VersionMatch::Exact) => Wanted::Exactly(revision),
        (Some(revision), VersionMatch::Unset) if options.limit > 0 => Wanted::Exactly(revision),
        (Some(revision), _) => Wanted::NotOlderThan(revision),
    }
}

fn page(view: &View, namespace: Option<&str>, options: &ListOptions, token: Option<&Token>) -> ListPage {
    let start = token.map_or(Bound::Unbounded, |t| Bound::Excluded(Key { namespace: &t.namespace, name: &t.name }));
    let mut rest = view.objects.range(namespace, start);
    let limit = usize::try_from(options.limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
    let matching = rest.by_ref().filter(|o| o.matches(&options.labels, &options.fields));
    let mut page =
        ListPage { items: matching.take(limit).cloned().collect(), revision: view.revision, ..ListPage::default() };
    let Some(last) = page.items.last().filter(|_| page.items.len() == limit) else { return page };
    let whole = options.labels.is_empty() && options.fields.is_empty();
    let more =
        if whole { rest.count() } else { rest.filter(|o| o.matches(&options.labels, &options.fields)).take(1).count() };
    if more > 0 {
        let (namespace, name) = (last.namespace().to_owned(), last.name().to_owned());
        page.continue_token = Token { revision: Some(view.revision), namespace, name }.encode();
        page.remaining = whole.then_some(more as u64);
    }
    page
}

/// Says that the state is forgotten, with a token that goes on without it.
fn expired(token: Option<&Token>) -> Status {
    match token {
        None => Status::expired("The resourceVersion for the provided list is too old."),
        Some(token) => Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        )
        .with_continue(Token { revision: None, ..token.clone() }.encode()),
    }
}
