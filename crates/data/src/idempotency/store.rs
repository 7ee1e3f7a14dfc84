//! Every statement on `idempotency_keys`. Time is the database's own: processes need not agree on it.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Answer, Claim, Claimed, Config, Request};
use crate::Error;
use crate::postgres::{Command, Place, Tx, Writer};

/// What a claim found.
struct Found {
    /// None: the key is not the claimant's.
    fence: Option<i64>,
    fingerprint: Vec<u8>,
    point: Option<serde_json::Value>,
    status: Option<i16>,
    headers: Option<serde_json::Value>,
    body: Option<Vec<u8>>,
    expires_at: OffsetDateTime,
}

/// Takes the key if it is new, expired, or begun with the same request and nobody's; or says what is known of it. No row: it
/// was taken after this statement began. Sent again after its connection was lost, it finds its own number.
pub(super) async fn claim(
    home: &Writer,
    config: &Config,
    request: &Request<'_>,
) -> Result<Claimed, Error> {
    let (key_hash, fence) = (request.key_hash(), fastrand::i64(..));
    let found = home
        .fetch_optional_repeatable(|| {
            sqlx::query_as!(
                Found,
                r#"with claimed as (
                       insert into idempotency_keys as kept
                           (key_hash, operation, caller, fingerprint, fence, locked_until, expires_at)
                       values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now() + make_interval(secs => $7))
                       on conflict (key_hash) do update
                       set operation = excluded.operation, fingerprint = excluded.fingerprint, fence = excluded.fence,
                           claims = kept.claims + 1, locked_until = excluded.locked_until,
                           expires_at = excluded.expires_at, status = null, headers = null, body = null
                       where kept.fence = excluded.fence or kept.locked_until <= now() and (
                           kept.status is null and kept.fingerprint = excluded.fingerprint
                           or kept.point is null and kept.expires_at <= now()
                       )
                       returning fence, fingerprint, point, expires_at
                   )
                   select fence as "fence?", fingerprint as "fingerprint!", point as "point?", null::smallint as "status?",
                          null::jsonb as "headers?", null::bytea as "body?", expires_at as "expires_at!"
                   from claimed
                   union all
                   select null, fingerprint, null, status, headers, body, expires_at
                   from idempotency_keys where key_hash = $1 and not exists (select from claimed)"#,
                &key_hash[..],
                request.operation,
                request.caller,
                &request.fingerprint[..],
                fence,
                config.lease.as_secs_f64(),
                config.ttl.as_secs_f64(),
            )
        })
        .await?;
    let Some(found) = found else {
        return Ok(Claimed::Running);
    };
    if let Some(fence) = found.fence {
        return Ok(Claimed::Ours(Claim {
            key_hash,
            fence,
            caller: request.caller,
            point: found.point,
            expires_at: found.expires_at,
        }));
    }
    if found.fingerprint != request.fingerprint {
        return Ok(Claimed::OtherRequest);
    }
    let (Some(status), Some(headers), Some(body)) = (found.status, found.headers, found.body)
    else {
        return Ok(Claimed::Running);
    };
    let answer = Answer {
        status: status.cast_unsigned(),
        headers: serde_json::from_value(headers).map_err(Error::encoding)?,
        body: body.into(),
    };
    Ok(Claimed::Answered(answer, found.expires_at))
}

/// Takes the key that was let go of first, of those that have begun and that nobody has touched for `age`; twice as long after
/// each claim that came to nothing.
pub(super) async fn claim_abandoned(
    home: &Writer,
    config: &Config,
    operation: &str,
    age: Duration,
) -> Result<Option<Claim>, Error> {
    let found = home
        .fetch_optional_repeatable(|| {
            sqlx::query!(
                "update idempotency_keys as kept
                 set fence = $3, claims = kept.claims + 1, locked_until = now() + make_interval(secs => $4),
                     expires_at = now() + make_interval(secs => $5)
                 where key_hash = (
                     select key_hash from idempotency_keys
                     where operation = $1 and point is not null and locked_until < now() - make_interval(secs => $2)
                         and locked_until < now() - make_interval(secs => $2) * power(2, least(claims - 1, 6))
                     order by locked_until limit 1 for update skip locked
                 )
                 returning key_hash, fence, caller, point, expires_at",
                operation,
                age.as_secs_f64(),
                fastrand::i64(..),
                config.lease.as_secs_f64(),
                config.ttl.as_secs_f64(),
            )
        })
        .await?;
    Ok(found.and_then(|found| {
        Some(Claim {
            key_hash: found.key_hash.try_into().ok()?,
            fence: found.fence,
            caller: found.caller,
            point: found.point,
            expires_at: found.expires_at,
        })
    }))
}

pub(super) async fn reach<P: Place>(
    tx: &mut Tx<P>,
    claim: &Claim,
    point: &serde_json::Value,
) -> Result<(), Error> {
    let reached = tx
        .execute(sqlx::query!(
            "update idempotency_keys set point = $3 where key_hash = $1 and fence = $2 and status is null",
            &claim.key_hash[..],
            claim.fence,
            point,
        ))
        .await?;
    held(reached)
}

pub(super) async fn finish<P: Place>(
    tx: &mut Tx<P>,
    claim: &Claim,
    answer: &Answer,
) -> Result<(), Error> {
    let headers = answer.headers_json()?;
    held(tx.execute(finished(claim, answer, &headers)).await?)
}

/// The same by itself.
pub(super) async fn answer(home: &Writer, claim: &Claim, answer: &Answer) -> Result<(), Error> {
    let headers = answer.headers_json()?;
    held(
        home.execute_repeatable(|| finished(claim, answer, &headers))
            .await?,
    )
}

fn finished<'a>(
    claim: &'a Claim,
    answer: &'a Answer,
    headers: &'a serde_json::Value,
) -> impl Command + 'a {
    sqlx::query!(
        "update idempotency_keys
         set point = null, status = $3, headers = $4, body = $5, locked_until = now()
         where key_hash = $1 and fence = $2 and status is null",
        &claim.key_hash[..],
        claim.fence,
        answer.status.cast_signed(),
        headers,
        &answer.body[..],
    )
}

/// Lets go of a key that is still the claimant's.
pub(super) async fn release(home: &Writer, claim: &Claim) -> Result<(), Error> {
    home.execute_repeatable(|| {
        sqlx::query!(
            "update idempotency_keys set locked_until = now() where key_hash = $1 and fence = $2 and status is null",
            &claim.key_hash[..],
            claim.fence,
        )
    })
    .await
    .map(drop)
}

/// Removes expired keys with nothing left to do; how many.
pub(super) async fn remove_expired(home: &Writer, batch: u32) -> Result<u64, Error> {
    home.execute_repeatable(|| {
        sqlx::query!(
            "delete from idempotency_keys where key_hash in (
                 select key_hash from idempotency_keys
                 where point is null and expires_at <= now() and locked_until <= now()
                 order by expires_at limit $1 for update skip locked
             )",
            i64::from(batch),
        )
    })
    .await
}

fn held(rows: u64) -> Result<(), Error> {
    match rows {
        0 => Err(Error::LeaseLost),
        _ => Ok(()),
    }
}
