//! What becomes of sessions, as the audit trail calls it.

use std::time::SystemTime;

use super::{FamilyId, NewFamily, RevokeReason};
use crate::{
    UserId,
    audit::{Act, AuditEvent},
    origin::inert,
};

/// That a session of a user was ended for this reason.
pub(crate) fn act_of(
    reason: RevokeReason,
    user: &UserId,
    session: &FamilyId,
    now: SystemTime,
) -> AuditEvent {
    let act = |act| AuditEvent::new(act, now).about(user).on(session.as_str());
    match reason {
        RevokeReason::Logout => act(Act::LOGOUT),
        RevokeReason::Reuse => act(Act::REFRESH_REUSED).refused("reused"),
        reason => act(Act::SESSION_ENDED).with_detail(reason.as_str()),
    }
}

impl NewFamily {
    /// That it was opened. From where, it says itself where nothing else does.
    pub(crate) fn act(&self) -> AuditEvent {
        let event = AuditEvent::new(Act::LOGIN, self.created_at).about(&self.user_id);
        let mut event = event.on(self.id.as_str()).with_detail(&self.amr.join(" "));
        event.ip = event.ip.or(self.info.ip());
        event.user_agent = event.user_agent.or_else(|| self.info.user_agent().map(inert));
        event
    }
}
