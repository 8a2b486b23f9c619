//! A refresh token presented: the next pair, or the end of its session.

use super::{
    super::{
        InvalidRefresh, PresentedToken, RefreshError, RefreshToken, RevokeReason, RotateRequest,
        Rotation, Sealing, SessionInfo, TokenPair, Verdict, judge,
        seal::{seal, unseal},
    },
    TokenService, after_mark,
};
use crate::{Identity, StoreError, UserId, signals};

impl TokenService {
    /// A new pair for a refresh token, which is worth nothing from then on. Presented again, it ends
    /// its session.
    ///
    /// `current` answers who the user is now: role and plan are read afresh, never carried over
    /// from the last token. `None`, for one who is gone or may no longer come in, ends the session;
    /// another user than was asked for is refused ([`RefreshError::InvalidIdentity`]).
    ///
    /// # Errors
    /// [`RefreshError::Invalid`] for a token that is worth nothing; [`RefreshError::Store`] and
    /// [`RefreshError::Signing`] where it may still be good.
    pub async fn refresh<F>(
        &self,
        presented: &str,
        current: impl FnOnce(UserId) -> F + Send,
    ) -> Result<TokenPair, RefreshError>
    where
        F: Future<Output = Result<Option<Identity>, StoreError>> + Send,
    {
        self.refresh_from(presented, SessionInfo::new(), current).await
    }

    /// The same, from where and with what the session is used now.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn refresh_from<F>(
        &self,
        presented: &str,
        info: SessionInfo,
        current: impl FnOnce(UserId) -> F + Send,
    ) -> Result<TokenPair, RefreshError>
    where
        F: Future<Output = Result<Option<Identity>, StoreError>> + Send,
    {
        let outcome = self.rotate(presented, info, current).await;
        signals::token_refreshed(match &outcome {
            Ok((_, "replayed")) => "replayed",
            Ok(_) => "rotated",
            Err(RefreshError::Invalid(reason)) => reason.as_str(),
            Err(_) => "failed",
        });
        outcome.map(|(pair, _)| pair)
    }

    async fn rotate<F>(
        &self,
        presented: &str,
        info: SessionInfo,
        current: impl FnOnce(UserId) -> F + Send,
    ) -> Result<(TokenPair, &'static str), RefreshError>
    where
        F: Future<Output = Result<Option<Identity>, StoreError>> + Send,
    {
        let invalid = |reason| Err(RefreshError::Invalid(reason));
        let Some(presented) = RefreshToken::parse(presented) else {
            return invalid(InvalidRefresh::Unknown);
        };
        let Some(PresentedToken { family, token, not_before }) =
            self.store.find_token(&presented.hash()).await?
        else {
            return invalid(InvalidRefresh::Unknown);
        };
        // A signature is made for a token only that looks good. What this was read from may change
        // before the store decides: it has the last word, under its locks.
        match judge(self.clock.now(), &family, &token) {
            Verdict::Rotate | Verdict::Replay => {}
            Verdict::Expired => return invalid(InvalidRefresh::Expired),
            Verdict::Revoked => return invalid(InvalidRefresh::Revoked),
            Verdict::Reuse if self.refresh_leeway.is_zero() => {
                return self.end_reused(&presented).await;
            }
            // It may have been replaced while it was read.
            Verdict::Reuse => {}
        }
        let Some(identity) = current(family.user_id.clone()).await? else {
            let reason = RevokeReason::NoUser;
            self.store.revoke_family(&presented.hash(), reason, &self.clock).await?;
            return invalid(InvalidRefresh::NoUser);
        };
        if *identity.user_id() != family.user_id {
            return Err(RefreshError::InvalidIdentity("user id"));
        }
        // Before the store is asked to rotate, so that a failure to sign burns nothing.
        let now = after_mark(self.clock.now(), not_before);
        let mut identity = identity.with_auth_time(family.created_at);
        if !family.amr.is_empty() {
            identity = identity.with_amr(family.amr.iter().cloned());
        }
        let mut pair = self.sign_pair(&identity, family.id.clone(), family.expires_at, now)??;
        let mut request = RotateRequest::new(
            presented.hash(),
            pair.refresh_token.hash(),
            self.refresh_ttl,
            self.clock.clone(),
        );
        request.info = info;
        if !self.refresh_leeway.is_zero() {
            let bytes = seal(&pair.refresh_token, &presented, &family.id, token.generation);
            request.sealing = bytes.map(|bytes| Sealing::new(bytes, self.refresh_leeway));
        }
        match self.store.rotate(request).await? {
            Rotation::Rotated { .. } => Ok((pair, "rotated")),
            Rotation::Replayed { family, successor, expires_at } => {
                let successor = unseal(&successor, &presented, &family)
                    .ok_or_else(|| StoreError::internal("the sealed token is damaged"))?;
                pair.refresh_token = successor;
                pair.refresh_expires_at = expires_at;
                Ok((pair, "replayed"))
            }
            refused => invalid(refusal(refused)),
        }
    }

    /// Of a token that was replaced: its session ends, and nothing is signed.
    async fn end_reused(
        &self,
        presented: &RefreshToken,
    ) -> Result<(TokenPair, &'static str), RefreshError> {
        let nothing = RefreshToken::random()?;
        let (clock, ttl) = (self.clock.clone(), self.refresh_ttl);
        let request = RotateRequest::new(presented.hash(), nothing.hash(), ttl, clock);
        Err(RefreshError::Invalid(refusal(self.store.rotate(request).await?)))
    }
}

fn refusal(rotation: Rotation) -> InvalidRefresh {
    match rotation {
        Rotation::Reused { family, user_id } => {
            tracing::warn!(
                family = family.as_str(),
                user_id = user_id.as_str(),
                "a refresh token was presented twice; its session is revoked"
            );
            InvalidRefresh::Reused
        }
        Rotation::Expired => InvalidRefresh::Expired,
        Rotation::Revoked => InvalidRefresh::Revoked,
        _ => InvalidRefresh::Unknown,
    }
}
