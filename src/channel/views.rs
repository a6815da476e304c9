//! The views of a server, by their names and by the channels that they show.

use super::channel::Channel;
use super::feed::Feed;
use super::log::Log;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

#[derive(Default)]
pub(super) struct Views {
    by_name: BTreeMap<Arc<str>, (Arc<Feed>, Log)>,
    /// Each part of a selection, with the name of the view: a channel that begins finds its views at a cost that does not
    /// grow with the others.
    by_part: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Views {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<&(Arc<Feed>, Log)> {
        self.by_name.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.by_name.values().map(|(view, _)| view)
    }

    /// A handle to the view.
    pub(super) fn insert(&mut self, view: &Arc<Feed>, log: &Log) -> Channel {
        let name = &view.members.name;
        self.by_part.extend(parts(view).map(|part| (Arc::clone(part), Arc::clone(name))));
        self.by_name.insert(Arc::clone(name), (Arc::clone(view), log.clone()));
        Channel::new(view, log)
    }

    /// What it returns must not be dropped under the lock of the table.
    pub(super) fn remove(&mut self, name: &str) -> Option<(Arc<Feed>, Log)> {
        let (view, log) = self.by_name.remove(name)?;
        for part in parts(&view) {
            self.by_part.remove(&(Arc::clone(part), Arc::clone(&view.members.name)));
        }
        Some((view, log))
    }

    /// The views that show the channel of this name.
    pub(super) fn of_channel(&self, name: &str) -> Vec<Weak<Feed>> {
        if self.by_name.is_empty() {
            return Vec::new();
        }
        let prefixes = (0..=name.len()).map(|length| format!("{}*", &name[..length]));
        let parts = prefixes.chain([name.to_owned()]).map(Arc::<str>::from);
        let views = parts.flat_map(|part| {
            let first = (Arc::clone(&part), Arc::from(""));
            self.by_part.range(first..).take_while(move |(found, _)| *found == part)
        });
        views
            .filter_map(|(_, view)| self.by_name.get(view))
            .map(|(view, _)| Arc::downgrade(view))
            .collect()
    }
}

fn parts(view: &Feed) -> impl Iterator<Item = &Arc<str>> {
    view.view.iter().flat_map(|view| view.selection.parts())
}
