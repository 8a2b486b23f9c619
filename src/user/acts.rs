//! What changes of users are called in the audit trail.

use std::time::SystemTime;

use super::User;
use crate::{
    UserId,
    audit::{Act, AuditEvent},
};

/// What a change did, an event for each: nothing for what is as it was.
pub(crate) fn acts(
    before: &User,
    after: &User,
    by: Option<&UserId>,
    now: SystemTime,
) -> Vec<AuditEvent> {
    let act = |act| AuditEvent::new(act, now).about(&after.id).or_by(by);
    let mut acts = Vec::new();
    if before.email_verified != after.email_verified {
        acts.push(act(Act::ADDRESS_VERIFIED));
    }
    if before.role != after.role {
        acts.push(act(Act::ROLE_CHANGED).with_detail(after.role.as_str()));
    }
    if before.plan != after.plan {
        let event = act(Act::PLAN_CHANGED);
        acts.push(after.plan.iter().fold(event, |event, plan| event.with_detail(plan.as_str())));
    }
    if before.suspended != after.suspended {
        acts.push(act(if after.suspended { Act::SUSPENDED } else { Act::UNSUSPENDED }));
    }
    if before.second_factor && !after.second_factor {
        acts.push(act(Act::SECOND_FACTOR_OFF));
    }
    acts
}
