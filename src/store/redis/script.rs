//! `window.lua` from outside: decisions in, integers out.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::redis::{
    self, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind, Value,
    aio::ConnectionLike,
};
use smallvec::SmallVec;

use super::connection::in_time;
use crate::{
    Quota,
    limit::{Decision, Mark},
};

const CODE: &str = include_str!("window.lua");

/// How many numbers of a reply stand before those of the decisions, and how many are one decision.
const HEAD: usize = 2;
const PER_ROW: usize = 4;

/// One question: may this pass all of these limits, or how does this hold end?
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) settles: bool,
    pub(super) rows: SmallVec<[Row; 2]>,
}

/// One limit of a question.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) quota: Quota,
    pub(super) cost: u32,
    /// A take: whether it is a hold. A settle: whether it is kept.
    pub(super) flag: bool,
    /// A settle: the mark of the hold.
    pub(super) mark: Mark,
}

/// The answer to a [`Request`]: for each row how the limit stands, and the mark of the hold if one
/// was taken.
pub(super) type Verdict = SmallVec<[(Decision, Mark); 2]>;

/// The answers to a batch.
#[derive(Debug)]
pub(super) struct Verdicts {
    pub(super) verdicts: Vec<Verdict>,
    /// How many values that were not ours have been replaced.
    pub(super) replaced: u64,
}

/// The script, and the settings that all its calls share.
#[derive(Debug)]
pub(super) struct Window {
    script: Script,
    resolution: u32,
}

impl Window {
    pub(super) fn new(resolution: u32) -> Self {
        Self { script: Script::new(CODE), resolution }
    }

    /// Puts these questions to the server, in one call. `now` in place of the server's time is for
    /// tests.
    pub(super) async fn ask(
        &self,
        connection: &mut impl ConnectionLike,
        requests: &[&Request],
        now: Option<u64>,
        within: Duration,
    ) -> RedisResult<Verdicts> {
        let by_hash = self.command(self.head("EVALSHA", self.script.get_hash()), requests, now);
        let mut reply = in_time(within, by_hash.query_async(connection)).await;
        // Neither of these has run.
        if is(&reply, ServerErrorKind::Moved) {
            reply = in_time(within, by_hash.query_async(connection)).await;
        }
        if is(&reply, ServerErrorKind::NoScript) {
            let in_full = self.command(self.head("EVAL", CODE), requests, now);
            reply = in_time(within, in_full.query_async(connection)).await;
        }
        read(reply?, requests)
    }

    fn head(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script);
        command
    }

    fn command(&self, mut command: Cmd, requests: &[&Request], now: Option<u64>) -> Cmd {
        let mut keys: Vec<&str> = Vec::new();
        let mut index_of = HashMap::with_hasher(foldhash::fast::RandomState::default());
        for row in requests.iter().flat_map(|request| &request.rows) {
            index_of.entry(row.key.as_str()).or_insert_with(|| {
                keys.push(&row.key);
                keys.len()
            });
        }
        command.arg(keys.len()).arg(&keys);
        match now {
            Some(now) => command.arg(now),
            None => command.arg(""),
        };
        command.arg(self.resolution);
        for request in requests {
            command.arg(if request.settles { 0 } else { request.rows.len() });
            for row in &request.rows {
                command.arg(index_of[row.key.as_str()]);
                command.arg(row.quota.limit()).arg(row.quota.window_us());
                command.arg(row.cost).arg(u8::from(row.flag)).arg(row.mark.0);
            }
        }
        command
    }
}

fn is(reply: &RedisResult<Value>, kind: ServerErrorKind) -> bool {
    matches!(reply, Err(error) if error.kind() == ErrorKind::Server(kind))
}

fn read(reply: Value, requests: &[&Request]) -> RedisResult<Verdicts> {
    let numbers = Vec::<i64>::from_redis_value(reply)?;
    let rows: usize = requests.iter().map(|request| request.rows.len()).sum();
    if numbers.len() != HEAD + rows * PER_ROW {
        return Err(odd_reply());
    }
    let (head, mut rest) = numbers.split_at(HEAD);
    let (mark, replaced) = (Mark(unsigned(head[0])?), unsigned(head[1])?);
    let mut verdicts = Vec::with_capacity(requests.len());
    for request in requests {
        let (numbers, others) = rest.split_at(request.rows.len() * PER_ROW);
        rest = others;
        let rows = request.rows.iter().zip(numbers.chunks_exact(PER_ROW));
        let decisions = rows.map(|(row, numbers)| Ok((decision(row.quota, numbers)?, mark)));
        verdicts.push(decisions.collect::<RedisResult<_>>()?);
    }
    Ok(Verdicts { verdicts, replaced })
}

fn decision(quota: Quota, numbers: &[i64]) -> RedisResult<Decision> {
    let &[allowed, remaining, reset, retry] = numbers else { return Err(odd_reply()) };
    let remaining = u32::try_from(remaining).map_err(|_| odd_reply())?;
    let reset_after = Duration::from_micros(unsigned(reset)?);
    let retry_after = match retry {
        -1 => None,
        _ => Some(Duration::from_micros(unsigned(retry)?)),
    };
    match allowed {
        0 => Ok(Decision::refused(quota, remaining, reset_after, retry_after)),
        1 => Ok(Decision::admitted(quota, remaining, reset_after)),
        _ => Err(odd_reply()),
    }
}

fn unsigned(number: i64) -> RedisResult<u64> {
    u64::try_from(number).map_err(|_| odd_reply())
}

fn odd_reply() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "not a reply of the script").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_reply_is_no_decision() {
        let row = Row {
            key: "rl:ip:a".into(),
            quota: Quota::per_minute(3),
            cost: 1,
            flag: false,
            mark: Mark(0),
        };
        let request = Request { settles: false, rows: SmallVec::from_iter([row]) };
        let read = |numbers: &[i64]| {
            let reply = Value::Array(numbers.iter().copied().map(Value::Int).collect());
            super::read(reply, &[&request])
        };
        assert!(read(&[1, 0, 1, 2, 60_000_000, -1]).is_ok());
        let odd: [&[i64]; 7] = [
            &[],
            &[1, 0, 1, 2, 60_000_000],
            &[1, 0, 1, 2, 60_000_000, -1, 0],
            &[1, 0, 2, 2, 60_000_000, -1],
            &[1, 0, 1, -2, 60_000_000, -1],
            &[1, 0, 1, 2, -60_000_000, -1],
            &[1, 0, 0, 0, 60_000_000, -2],
        ];
        for numbers in odd {
            assert!(read(numbers).is_err(), "{numbers:?}");
        }
        assert!(super::read(Value::Okay, &[&request]).is_err());
    }
}
