//! [`Act`]: what is done.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identity::open_value;

open_value! {
    /// What was done: an open value, so that a program can note acts of its own beside these.
    ///
    /// ```
    /// use tower_warden::audit::Act;
    /// const INVOICE_PAID: Act = Act::from_static("invoice_paid");
    /// assert_ne!(Act::LOGIN, INVOICE_PAID);
    /// ```
    Act {
        /// An account was made.
        REGISTERED = "registered",
        /// An address was proved by its link.
        ADDRESS_VERIFIED = "address_verified",
        /// A session was opened (the object says which, the detail by which factors); or it was not
        /// (the detail says why).
        LOGIN = "login",
        /// The password was right, and a second factor is asked for.
        SECOND_STEP = "second_step",
        /// A recovery code was used up.
        RECOVERY_CODE_USED = "recovery_code_used",
        /// A refresh token was presented again; its session has ended.
        REFRESH_REUSED = "refresh_reused",
        /// A session was left.
        LOGOUT = "logout",
        /// A session was ended from another one, to make room for one, or because its user is gone or
        /// may no longer come in: the detail says which.
        SESSION_ENDED = "session_ended",
        /// All sessions were ended, or all but the one that is the object.
        LOGOUT_ALL = "logout_all",
        /// A link to set a forgotten password was made.
        PASSWORD_FORGOTTEN = "password_forgotten",
        /// A forgotten password was set by its link.
        PASSWORD_RESET = "password_reset",
        /// A password was changed by who knew it.
        PASSWORD_CHANGED = "password_changed",
        /// A password or a code was wrong that somebody who is signed in was asked for.
        CONFIRMATION = "confirmation",
        /// Another address was asked for.
        EMAIL_CHANGE_ASKED = "email_change_asked",
        /// Another address was proved, and is the account's.
        EMAIL_CHANGED = "email_changed",
        /// An account was deleted.
        DELETED = "deleted",
        /// An account was suspended.
        SUSPENDED = "suspended",
        /// An account was given back.
        UNSUSPENDED = "unsuspended",
        /// An account got another role: the detail.
        ROLE_CHANGED = "role_changed",
        /// An account got another plan: the detail, which is missing for none.
        PLAN_CHANGED = "plan_changed",
        /// The configuration made somebody an admin; the detail says how.
        ADMIN_ENSURED = "admin_ensured",
        /// An API key was made: the object.
        KEY_CREATED = "key_created",
        /// An API key was revoked: the object.
        KEY_REVOKED = "key_revoked",
        /// All API keys of an account were revoked; the detail says how many.
        KEYS_REVOKED = "keys_revoked",
        /// A second factor was turned on.
        SECOND_FACTOR_ON = "second_factor_on",
        /// A second factor was turned off, by its user or by an admin: the actor says which.
        SECOND_FACTOR_OFF = "second_factor_off",
        /// The keys that sign tokens were changed.
        SIGNING_KEYS_CHANGED = "signing_keys_changed",
    }
}
