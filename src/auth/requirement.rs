//! Requirements that have a name, for [`Require::of`](crate::Require::of) and for handlers.

use std::{fmt, marker::PhantomData, ops::Deref};

use crate::{Identity, Role};

/// What must be true of a caller, as a type: so that a handler says it in its signature
/// ([`Permitted`]).
///
/// ```
/// use tower_warden::{Identity, Role, UserId, auth::{Admin, Editor, Either, Requirement}};
///
/// /// Who signed in with a one-time code.
/// struct SecondFactor;
///
/// impl Requirement for SecondFactor {
///     fn is_met_by(caller: &Identity) -> bool {
///         caller.amr().iter().any(|method| method == "otp")
///     }
/// }
/// let caller = Identity::new(UserId::from("42"), Role::EDITOR).with_amr(["pwd"]);
/// assert!(!SecondFactor::is_met_by(&caller));
/// assert!(Either::<Editor, Admin>::is_met_by(&caller));
/// ```
pub trait Requirement {
    /// Whether it is true of this caller.
    fn is_met_by(caller: &Identity) -> bool;
}

/// The role is [`Role::VIEWER`]: no other passes, as roles have no order.
///
/// ```
/// use tower_warden::{Identity, Role, UserId, auth::{Requirement, Viewer}};
/// assert!(Viewer::is_met_by(&Identity::new(UserId::from("7"), Role::VIEWER)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Viewer;

/// The role is [`Role::EDITOR`].
///
/// ```
/// use tower_warden::{Identity, Role, UserId, auth::{Editor, Requirement}};
/// assert!(!Editor::is_met_by(&Identity::new(UserId::from("7"), Role::ADMIN))); // roles have no order
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Editor;

/// The role is [`Role::ADMIN`].
///
/// ```
/// use tower_warden::{Identity, Role, UserId, auth::{Admin, Requirement}};
/// assert!(Admin::is_met_by(&Identity::new(UserId::from("7"), Role::ADMIN)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Admin;

/// One of the two is met.
///
/// ```
/// use tower_warden::{Require, auth::{Admin, Editor, Either}};
/// let layer = Require::of::<Either<Editor, Admin>>();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Either<A, B>(PhantomData<(A, B)>);

/// Both are met.
///
/// ```
/// use tower_warden::{Identity, Require, auth::{Admin, Both, Requirement}};
///
/// struct WithCode;
/// impl Requirement for WithCode {
///     fn is_met_by(caller: &Identity) -> bool {
///         caller.amr().iter().any(|method| method == "otp")
///     }
/// }
/// let layer = Require::of::<Both<Admin, WithCode>>();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Both<A, B>(PhantomData<(A, B)>);

impl Requirement for Viewer {
    fn is_met_by(caller: &Identity) -> bool {
        *caller.role() == Role::VIEWER
    }
}

impl Requirement for Editor {
    fn is_met_by(caller: &Identity) -> bool {
        *caller.role() == Role::EDITOR
    }
}

impl Requirement for Admin {
    fn is_met_by(caller: &Identity) -> bool {
        *caller.role() == Role::ADMIN
    }
}

impl<A: Requirement, B: Requirement> Requirement for Either<A, B> {
    fn is_met_by(caller: &Identity) -> bool {
        A::is_met_by(caller) || B::is_met_by(caller)
    }
}

impl<A: Requirement, B: Requirement> Requirement for Both<A, B> {
    fn is_met_by(caller: &Identity) -> bool {
        A::is_met_by(caller) && B::is_met_by(caller)
    }
}

/// A caller who meets a requirement: with the feature `axum` an extractor, which answers 403 where
/// the caller does not.
///
/// Where [`RequireAuth`](crate::RequireAuth) doesn't stand outside of the handler, the request is
/// answered 500, and logged.
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use axum::{Router, routing::delete};
/// use tower_warden::auth::{Admin, Editor, Either, Permitted};
/// let app: Router = Router::new().route(
///     "/drafts",
///     delete(async |caller: Permitted<Either<Editor, Admin>>| caller.user_id().to_string()),
/// );
/// ```
pub struct Permitted<R> {
    caller: Identity,
    by: PhantomData<fn() -> R>,
}

impl<R: Requirement> Permitted<R> {
    /// This caller, if it meets the requirement.
    #[must_use]
    pub fn new(caller: Identity) -> Option<Self> {
        R::is_met_by(&caller).then_some(Self { caller, by: PhantomData })
    }

    /// The caller alone.
    #[must_use]
    pub fn into_inner(self) -> Identity {
        self.caller
    }
}

impl<R> Deref for Permitted<R> {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.caller
    }
}

impl<R> Clone for Permitted<R> {
    fn clone(&self) -> Self {
        Self { caller: self.caller.clone(), by: PhantomData }
    }
}

impl<R> fmt::Debug for Permitted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permitted").field(&self.caller).finish()
    }
}
