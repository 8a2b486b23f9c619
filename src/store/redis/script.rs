//! `window.lua` from outside: requests in, decisions out.

use std::{collections::HashMap, time::Duration};

use foldhash::fast::RandomState;
use redis::{
    Cmd, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value, aio::ConnectionLike,
};
use smallvec::SmallVec;

use crate::{
    Quota,
    limit::{Decision, store::Mark},
};

const CODE: &str = include_str!("window.lua");

/// How many bytes of a reply stand before those of the rows.
const HEAD: usize = 16;

/// One question: may this pass all of these limits, or how does this hold end?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) verb: Verb,
    pub(super) rows: SmallVec<[Row; 2]>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    Take,
    /// Of one row.
    Settle,
    /// Of one row, about which nothing else is told.
    Reset,
}

/// One limit of a question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) quota: Quota,
    pub(super) cost: u32,
    /// A take: whether it is a hold. A settle: whether it is kept.
    pub(super) flag: bool,
    /// A settle: the mark of the hold.
    pub(super) mark: u64,
    /// A take: for a lease, which is all of the question. A settle: what is left of one.
    pub(super) lease: Option<Wanted>,
}

impl Row {
    fn what(&self, verb: Verb) -> u8 {
        match verb {
            Verb::Reset => 3,
            Verb::Settle if self.lease.is_some() => 2,
            Verb::Settle | Verb::Take => u8::from(self.flag),
        }
    }

    fn number(&self, verb: Verb) -> u64 {
        match (verb, self.lease) {
            (Verb::Take, Some(wanted)) => wanted.micros,
            _ => self.mark,
        }
    }
}

/// A lease that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// How long it lasts from the moment that the server grants it.
    pub(super) micros: u64,
    /// How many admissions, the one that is asked for included.
    pub(super) most: u32,
}

/// The answer to a [`Request`], for each row.
pub(super) type Verdict = SmallVec<[Found; 2]>;

/// What was found of one limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) decision: Decision,
    /// Of the hold if one was taken; the instant of the decision by the server's clock.
    pub(super) mark: Mark,
    /// How many were admitted that were asked for together.
    pub(super) granted: u32,
}

impl Found {
    pub(super) fn is_allowed(&self) -> bool {
        self.decision.is_allowed()
    }
}

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
        Self { script: Script::new(CODE), resolution: resolution.max(1) }
    }

    /// Puts these questions to the server, in one call. `now` in place of the server's time is for
    /// tests.
    pub(super) async fn ask(
        &self,
        connection: &mut impl ConnectionLike,
        requests: &[&Request],
        now: Option<u64>,
    ) -> RedisResult<Verdicts> {
        let batch = Batch::of(requests);
        let by_hash = self.command(self.head("EVALSHA", self.script.get_hash()), &batch, now);
        let mut reply = by_hash.query_async(connection).await;
        // Then it has not run.
        if is(&reply, ServerErrorKind::NoScript) {
            let in_full = self.command(self.head("EVAL", CODE), &batch, now);
            reply = in_full.query_async(connection).await;
        }
        batch.read(reply?)
    }

    fn head(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script);
        command
    }

    fn command(&self, mut command: Cmd, batch: &Batch<'_>, now: Option<u64>) -> Cmd {
        let (mut runs, mut quotas) = (Runs::default(), Vec::<Quota>::new());
        command.arg(batch.rows());
        for &(request, times) in &batch.distinct {
            let count = if request.verb != Verb::Take { 0 } else { request.rows.len() as u32 };
            let run = runs.begin(count, times);
            for row in &request.rows {
                command.arg(&row.key);
                // There are as many as rules, which are few.
                let place = quotas.iter().position(|quota| *quota == row.quota);
                let place = place.unwrap_or_else(|| {
                    quotas.push(row.quota);
                    quotas.len() - 1
                });
                runs.packed.extend_from_slice(&(place as u32 + 1).to_le_bytes());
                runs.packed.extend_from_slice(&row.cost.to_le_bytes());
                runs.packed.push(row.what(request.verb));
                runs.packed.extend_from_slice(&row.number(request.verb).to_le_bytes());
            }
            runs.end(run);
        }
        let mut packed = Vec::with_capacity(quotas.len() * 24);
        for quota in quotas {
            packed.extend_from_slice(&quota.limit().to_le_bytes());
            packed.extend_from_slice(&quota.window_us().to_le_bytes());
            let milliseconds = quota.window_us().div_ceil(1_000).to_string();
            packed.push(milliseconds.len() as u8);
            packed.extend_from_slice(milliseconds.as_bytes());
        }
        match now {
            Some(now) => command.arg(now),
            None => command.arg(""),
        };
        command.arg(self.resolution).arg(packed).arg(runs.packed);
        command
    }
}

/// The numbers of requests, packed. Those of requests that are alike but for their keys, and follow one
/// another, stand once.
#[derive(Default)]
struct Runs {
    packed: Vec<u8>,
    /// Where the last one begins: how many requests it has, in four bytes, and what they are.
    last: usize,
}

impl Runs {
    /// Says where the run begins whose rows follow.
    fn begin(&mut self, count: u32, times: u32) -> usize {
        let begun = self.packed.len();
        for number in [1, count, times] {
            self.packed.extend_from_slice(&number.to_le_bytes());
        }
        begun
    }

    /// Makes it one with the last, where they are alike.
    fn end(&mut self, begun: usize) {
        let (before, run) = self.packed.split_at_mut(begun);
        match before.get_mut(self.last..).and_then(<[u8]>::split_first_chunk_mut) {
            Some((requests, last)) if *last == run[4..] => {
                *requests = (u32::from_le_bytes(*requests) + 1).to_le_bytes();
                self.packed.truncate(begun);
            }
            _ => self.last = begun,
        }
    }
}

/// Requests of one call. Those that are alike are asked about once, with their number: what they
/// get is the same in any order.
struct Batch<'a> {
    distinct: Vec<(&'a Request, u32)>,
    /// Of each request, in which place of these it is, and how many like it come before.
    places: Vec<(usize, u32)>,
}

impl<'a> Batch<'a> {
    fn of(requests: &[&'a Request]) -> Self {
        let mut distinct: Vec<(&Request, u32)> = Vec::with_capacity(requests.len());
        let mut place_of =
            HashMap::with_capacity_and_hasher(requests.len(), RandomState::default());
        let place = |&request: &&'a Request| {
            let new = distinct.len();
            // Each hold is settled, and each lease asked for, by itself.
            let lease = request.rows.first().and_then(|row| row.lease);
            let alone = request.verb != Verb::Take || lease.is_some();
            let place = if alone { new } else { *place_of.entry(request).or_insert(new) };
            if place == new {
                distinct.push((request, lease.map_or(0, |wanted| wanted.most.max(1) - 1)));
            }
            let times = &mut distinct[place].1;
            *times += 1;
            (place, if alone { 0 } else { *times - 1 })
        };
        let places = requests.iter().map(place).collect();
        Self { distinct, places }
    }

    fn rows(&self) -> usize {
        self.distinct.iter().map(|(request, _)| request.rows.len()).sum()
    }

    fn read(&self, reply: Value) -> RedisResult<Verdicts> {
        let Value::BulkString(reply) = reply else { return Err(odd_reply()) };
        let (mut head, mut rest) = reply.split_at_checked(HEAD).ok_or_else(odd_reply)?;
        let mark = Mark(u64::from_le_bytes(number(&mut head)?));
        let replaced = u64::from_le_bytes(number(&mut head)?);
        let mut answers = Vec::with_capacity(self.distinct.len());
        for (request, times) in &self.distinct {
            let rows = request.rows.iter();
            let rows = rows.map(|row| RowAnswer::read(&mut rest, row, *times));
            answers.push(rows.collect::<RedisResult<SmallVec<[_; 2]>>>()?);
        }
        if !rest.is_empty() {
            return Err(odd_reply());
        }
        let verdict = |&(place, nth): &(usize, u32)| {
            let rows = answers[place].iter().zip(&self.distinct[place].0.rows);
            let found = rows.map(|(answer, row)| Found {
                decision: answer.decision(row, nth),
                mark,
                granted: answer.admitted,
            });
            found.collect()
        };
        let verdicts = self.places.iter().map(verdict).collect();
        Ok(Verdicts { verdicts, replaced })
    }
}

/// How one limit stands after requests that are alike.
struct RowAnswer {
    /// How many of them were admitted.
    admitted: u32,
    /// Whether this limit has room for one more.
    room: bool,
    remaining: u32,
    reset_after: Duration,
    retry_after: Option<Duration>,
}

impl RowAnswer {
    fn read(bytes: &mut &[u8], row: &Row, times: u32) -> RedisResult<Self> {
        let admitted = u32::from_le_bytes(number(bytes)?);
        let (admitted, room) = (admitted / 2, admitted % 2 == 1);
        let remaining = u32::from_le_bytes(number(bytes)?);
        let reset_after = Duration::from_micros(u64::from_le_bytes(number(bytes)?));
        let wait = if room { 0 } else { u64::from_le_bytes(number(bytes)?) };
        let retry_after = (wait > 0).then(|| Duration::from_micros(wait));
        // What the first of them found must be a number as well.
        let first = u64::from(remaining) + u64::from(admitted) * u64::from(row.cost);
        if admitted > times || first > u64::from(u32::MAX) {
            return Err(odd_reply());
        }
        Ok(Self { admitted, room, remaining, reset_after, retry_after })
    }

    /// What the n-th of them gets, from 0.
    fn decision(&self, row: &Row, nth: u32) -> Decision {
        let (quota, reset_after) = (row.quota, self.reset_after);
        let allowed = nth < self.admitted || self.room;
        let later = self.admitted.saturating_sub(nth + 1);
        let remaining = self.remaining + later * row.cost;
        if allowed {
            Decision::admitted(quota, remaining, reset_after)
        } else {
            Decision::refused(quota, remaining, reset_after, self.retry_after)
        }
    }
}

fn is(reply: &RedisResult<Value>, kind: ServerErrorKind) -> bool {
    matches!(reply, Err(error) if error.kind() == ErrorKind::Server(kind))
}

/// Takes so many bytes from the front.
fn number<const N: usize>(bytes: &mut &[u8]) -> RedisResult<[u8; N]> {
    let (number, rest) = bytes.split_first_chunk().ok_or_else(odd_reply)?;
    *bytes = rest;
    Ok(*number)
}

fn odd_reply() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "not a reply of the script").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_reply_is_no_decision() {
        let request = request(1);
        let read = |numbers| Batch::of(&[&request]).read(Value::BulkString(reply(&[numbers])));
        let sound = (1, 1, 2, 60_000_000, 0);
        assert!(read(sound).is_ok());
        assert!(read((1, 0, 2, 60_000_000, 0)).is_ok());
        assert!(read((2, 1, 2, 60_000_000, 0)).is_err());
        assert!(read((1, 1, u32::MAX, 60_000_000, 0)).is_err());
        let bytes = reply(&[sound]);
        let longer = [&bytes[..], &[0]].concat();
        for bytes in [&[], &bytes[..HEAD], &bytes[1..], &longer[..]] {
            let odd = Value::BulkString(bytes.to_vec());
            assert!(Batch::of(&[&request]).read(odd).is_err(), "{bytes:?}");
        }
        assert!(Batch::of(&[&request]).read(Value::Okay).is_err());
    }

    #[test]
    fn requests_that_are_alike_share_a_row_and_get_their_own_answers() {
        let (heavy, light) = (request(2), request(1));
        let hold = Request { verb: Verb::Settle, ..light.clone() };
        let requests = [&heavy, &light, &heavy, &hold, &heavy, &hold];
        let batch = Batch::of(&requests);
        assert_eq!(batch.rows(), 4);
        let numbers = [(2, 0, 1, 7, 5), (1, 1, 2, 7, 0), (1, 1, 3, 7, 0), (1, 1, 4, 7, 0)];
        let verdicts = batch.read(Value::BulkString(reply(&numbers))).unwrap().verdicts;
        let found = verdicts.iter().map(|verdict| {
            let decision = verdict[0].decision;
            let retry_after = decision.retry_after().map(|wait| wait.as_micros());
            (decision.is_allowed(), decision.remaining(), retry_after)
        });
        let expected = [
            (true, 3, None),
            (true, 2, None),
            (true, 1, None),
            (true, 3, None),
            (false, 1, Some(5)),
            (true, 4, None),
        ];
        assert!(found.eq(expected));
    }

    #[test]
    fn requests_that_differ_in_their_keys_alone_are_told_once() {
        let mut runs = Runs::default();
        for (count, times, row) in
            [(1, 1, 7), (1, 1, 7), (1, 2, 7), (1, 2, 8), (1, 2, 8), (0, 2, 8)]
        {
            let run = runs.begin(count, times);
            runs.packed.push(row);
            runs.end(run);
        }
        let told = runs.packed.chunks(13).map(|run| [run[0], run[4], run[8], run[12]]);
        assert!(told.eq([[2, 1, 1, 7], [1, 1, 2, 7], [2, 1, 2, 8], [1, 0, 2, 8]]));
    }

    fn request(cost: u32) -> Request {
        let (key, quota) = ("rl:ip:a".to_owned(), Quota::per_minute(3));
        let row = Row { key, quota, cost, flag: false, mark: 0, lease: None };
        Request { verb: Verb::Take, rows: SmallVec::from_iter([row]) }
    }

    fn reply(rows: &[(u32, u32, u32, u64, u64)]) -> Vec<u8> {
        let mut bytes = [&7_u64.to_le_bytes()[..], &0_u64.to_le_bytes()].concat();
        for (admitted, room, remaining, reset, retry) in rows {
            bytes.extend_from_slice(&(2 * admitted + room).to_le_bytes());
            bytes.extend_from_slice(&remaining.to_le_bytes());
            bytes.extend_from_slice(&reset.to_le_bytes());
            if *room == 0 {
                bytes.extend_from_slice(&retry.to_le_bytes());
            }
        }
        bytes
    }
}
