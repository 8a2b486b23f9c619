//! Notices: what a user is told by mail after the fact.

use std::{fmt, sync::Arc};

use super::{User, UserService, mail::Message};

/// What happened to an account, of which its owner is told.
///
/// ```
/// use tower_warden::{UserService, user::{Notice, mail::Message}};
///
/// /// In words of one's own; `None` sends nothing.
/// fn with_our_letters(users: UserService) -> UserService {
///     users.with_notices(|user, notice| match notice {
///         Notice::PasswordReset { .. } | Notice::PasswordChanged { .. } => {
///             Some(Message::new(user.email.clone(), "New password", "Was it you? If not: help@example.com\n"))
///         }
///         _ => None,
///     })
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The password was set by the link of a forgotten password.
    PasswordReset {
        /// How many API keys go on working.
        api_keys: u64,
    },
    /// The password was changed by someone who knew it.
    PasswordChanged {
        /// How many API keys go on working.
        api_keys: u64,
    },
    /// Somebody who is signed in asked for another address, which is still to be confirmed.
    EmailChangeRequested,
    /// An admin took the second factor away.
    SecondFactorRemoved,
}

/// Writes notices; `None` where nothing is to be sent.
#[derive(Clone)]
pub(super) struct Notices(Arc<NoticeLetter>);

type NoticeLetter = dyn Fn(&User, Notice) -> Option<Message> + Send + Sync;

impl Notices {
    pub(super) fn new(
        letter: impl Fn(&User, Notice) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(letter))
    }
}

impl Default for Notices {
    fn default() -> Self {
        Self::new(|user, notice| {
            let (subject, text) = notice.default_letter();
            Some(Message::new(user.email.clone(), subject, text))
        })
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices(…)")
    }
}

impl Notice {
    fn default_letter(self) -> (&'static str, String) {
        match self {
            Self::PasswordReset { api_keys } | Self::PasswordChanged { api_keys } => {
                let mut text = String::from(
                    "The password of your account was changed, and all other sessions were ended.\n",
                );
                if api_keys > 0 {
                    let s = if api_keys == 1 { "" } else { "s" };
                    text += &format!(
                        "\nYou have {api_keys} API key{s}, which still work. Revoke what you don't \
                         know.\n"
                    );
                }
                text += "\nIf it wasn't you, set a new password at once.\n";
                ("Your password was changed", text)
            }
            Self::EmailChangeRequested => (
                "Your e-mail address is to be changed",
                "Somebody who is signed in to your account asked for another e-mail address. It is \
                 not yours any more once the new one is confirmed.\n\n\
                 If it wasn't you, change your password at once.\n"
                    .to_owned(),
            ),
            Self::SecondFactorRemoved => (
                "Your second factor was turned off",
                "An administrator turned off the second factor of your account: your password \
                 alone opens it now.\n\n\
                 If you did not ask for this, turn it on again and tell the administrator.\n"
                    .to_owned(),
            ),
        }
    }
}

impl UserService {
    /// Tells a user by mail what happened, in the letter of
    /// [`with_notices`](Self::with_notices). Without mail nothing is sent.
    pub fn notify(&self, user: &User, notice: Notice) {
        if let (Some(outbox), Some(message)) = (&self.outbox, (self.notices.0)(user, notice)) {
            outbox.post(message);
        }
    }
}
