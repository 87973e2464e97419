//! Bans in the view. A ban is an event of the join that the machine had: whoever
//! sees it first, by a watch or by its own word, notes the same one.

use std::sync::Arc;

use berth_domain::identity::{MachineId, SpkiHash};
use berth_domain::join::{Entry, Event, JoinId};
use berth_domain::name::NodeName;
use berth_domain::node::Ban;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::{View, is_stale};
use crate::cluster::kube::objects::MachineBan;

impl View {
    /// Takes what the API server says of a ban. Answers the join whose event it
    /// is, if that is news.
    pub(in crate::cluster::kube) fn take_ban(&mut self, object: MachineBan) -> Option<JoinId> {
        let name = object.name_any();
        if self.is_old_ban(&object.metadata) {
            return None;
        }
        let ban = object.ban()?;
        let holder = self.nodes.values().find(|held| held.record.machine == ban.machine);
        let join = object
            .spec
            .join
            .or_else(|| holder.map(|held| held.record.join))
            .or_else(|| nobodys_join(&ban))?;
        self.ban_objects.insert(name, Arc::new(object));
        self.bans.insert(ban.machine, (ban.clone(), join));
        let slot = self.slots.get(&join)?;
        // What is older than the record's last change was recorded long ago.
        if ban.at < slot.record.updated {
            return None;
        }
        let event = Event::Banned { by: ban.by, reason: ban.reason };
        let entry = Entry { sequence: 0, at: ban.at, join, node: Some(ban.name), event };
        self.note(entry).then_some(join)
    }

    /// Whether what came of a ban is known already, or older than what is.
    pub(in crate::cluster::kube) fn is_old_ban(&self, came: &ObjectMeta) -> bool {
        let known = came.name.as_ref().and_then(|name| self.ban_objects.get(name));
        self.gone.holds(came.uid.as_ref()) || is_stale(known.map(AsRef::as_ref), came)
    }

    /// A ban was lifted. Says whether that is news.
    pub(in crate::cluster::kube) fn drop_ban(&mut self, name: &str, uid: Option<&String>) -> bool {
        self.gone.note(uid);
        if self.ban_objects.get(name).is_none_or(|object| object.metadata.uid.as_ref() != uid) {
            return false;
        }
        let ban = self.ban_objects.remove(name).and_then(|object| object.ban());
        ban.is_some_and(|ban| self.bans.remove(&ban.machine).is_some())
    }

    /// A machine's ban.
    pub(in crate::cluster::kube) fn ban(&self, machine: MachineId) -> Option<&Ban> {
        self.bans.get(&machine).map(|(ban, _)| ban)
    }

    /// The newest ban of a machine that had this name, and the join it had.
    pub(in crate::cluster::kube) fn ban_by_name(&self, name: &NodeName) -> Option<(Ban, JoinId)> {
        let named = self.bans.values().filter(|(ban, _)| ban.name == *name);
        named.max_by_key(|(ban, _)| ban.at).cloned()
    }

    /// The object of a ban.
    pub(in crate::cluster::kube) fn ban_object(&self, machine: MachineId) -> Option<Arc<MachineBan>> {
        self.ban_objects.get(&machine.to_hex()).cloned()
    }

    /// The objects of all bans.
    pub(in crate::cluster::kube) fn ban_names(&self) -> Vec<(String, Option<String>)> {
        self.ban_objects.iter().map(|(name, object)| (name.clone(), object.uid())).collect()
    }
}

/// A ban that a person wrote for a machine that no join is known of has events of
/// its own.
fn nobodys_join(ban: &Ban) -> Option<JoinId> {
    let token = "aaaaaaaaaa".parse().ok()?;
    Some(JoinId::of(&token, SpkiHash(ban.machine.0)))
}
