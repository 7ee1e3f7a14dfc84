//! Password hashes: argon2id, computed by a few threads at a time. Each costs 19 MiB and tens of milliseconds of CPU, so
//! without a bound a burst of logins would starve everything else on the machine.

use std::time::Duration;

use argon2::{
    Params,
    password_hash::{Error, PasswordVerifier, phc::PasswordHash},
};
use garde::Validate;
use resilience::{Bulkhead, bulkhead};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::hasher::Hasher;
use crate::http::{ApiError, ApiResult};

/// What a hash costs, and how many are computed at once: `sessions.passwords.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory of one hash, in KiB. 19456 with 2 passes is the least that OWASP's password storage cheat sheet allows.
    #[garde(range(min = 19_456, max = 1_048_576))]
    pub memory_kib: u32,
    /// Passes over that memory.
    #[garde(range(min = 2, max = 20))]
    pub passes: u32,
    /// Hashes computed at the same time. Each keeps one CPU busy, and the memory of each is kept.
    #[garde(range(min = 1, max = 256))]
    pub at_once: usize,
    /// Logins that wait for their turn; further ones are answered with 503 at once.
    #[garde(range(min = 0, max = 10_000))]
    pub waiting_max: usize,
    /// How long a login may wait for its turn before it is answered with 503.
    #[serde(with = "humantime_serde")]
    #[garde(skip)]
    pub wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            at_once: 2,
            // As many as are done within the wait, at some 60 ms each.
            waiting_max: 32,
            wait: Duration::from_secs(1),
        }
    }
}

/// Hashes and compares passwords. A clone is cheap and shares the bound.
#[derive(Clone)]
pub struct Passwords {
    hasher: Hasher,
    turns: Bulkhead,
}

/// Whether a password is the one that was hashed.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Wrong,
    /// It is. If the hash was cheaper than a new one would be, here is the new one.
    Right {
        stronger: Option<String>,
    },
}

impl Passwords {
    pub fn new(config: &Config) -> Self {
        let params = Params::new(config.memory_kib, config.passes, 1, None)
            .expect("the ranges of the settings lie within argon2's");
        Self {
            hasher: Hasher::new(params),
            turns: Bulkhead::new(&bulkhead::Config {
                calls_max: config.at_once,
                waiting_max: config.waiting_max,
                wait: config.wait,
            }),
        }
    }

    pub async fn hash(&self, password: SecretString, deadline: Instant) -> ApiResult<String> {
        self.in_turn(deadline, move |hasher| hash(hasher, &password))
            .await
    }

    /// Compares with `stored`. Without one the same work is done for nothing, so that an attacker cannot tell by the clock
    /// which accounts exist.
    pub async fn verify(
        &self,
        password: SecretString,
        stored: Option<String>,
        deadline: Instant,
    ) -> ApiResult<Verdict> {
        self.in_turn(deadline, move |hasher| {
            verify(hasher, &password, stored.as_deref())
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Hasher) -> Result<T, Error> + Send + 'static,
    ) -> ApiResult<T> {
        let turn = self.turns.enter(deadline).await;
        let turn = turn.map_err(|_| ApiError::busy())?;
        let hasher = self.hasher.clone();
        // The turn ends with the work, not with a client that has gone away.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&hasher)
        });
        done.await
            .map_err(ApiError::internal)?
            .map_err(ApiError::internal)
    }
}

fn hash(hasher: &Hasher, password: &SecretString) -> Result<String, Error> {
    Ok(hasher
        .hash(password.expose_secret().as_bytes())?
        .to_string())
}

fn verify(
    hasher: &Hasher,
    password: &SecretString,
    stored: Option<&str>,
) -> Result<Verdict, Error> {
    let nobody = nobody(hasher.params());
    let stored_hash =
        PasswordHash::new(stored.unwrap_or(&nobody)).map_err(|_| Error::EncodingInvalid)?;
    match hasher.verify_password(password.expose_secret().as_bytes(), &stored_hash) {
        Ok(()) if stored.is_some() => {}
        Ok(()) | Err(Error::PasswordInvalid) => return Ok(Verdict::Wrong),
        Err(error) => return Err(error),
    }
    let params = Params::try_from(&stored_hash).map_err(|_| Error::EncodingInvalid)?;
    let wanted = hasher.params();
    let weaker = params.m_cost() < wanted.m_cost() || params.t_cost() < wanted.t_cost();
    Ok(Verdict::Right {
        stronger: weaker.then(|| hash(hasher, password)).transpose()?,
    })
}

/// A hash that costs what every other costs, and that no password has.
fn nobody(params: &Params) -> String {
    let (salt, output) = ("A".repeat(22), "A".repeat(43));
    format!(
        "$argon2id$v=19$m={},t={},p={}${salt}${output}",
        params.m_cost(),
        params.t_cost(),
        params.p_cost()
    )
}

const CHARS_MIN: usize = 8;
const BYTES_MAX: usize = 1024;

/// What everybody tries first, one in a line, all in lower case, none shorter than what is allowed anyway.
const COMMON: &str = include_str!("common_passwords.txt");

/// Accepts a new password by its length and by how easily it is guessed. No rule about kinds of characters: such rules make
/// passwords easier to guess (OWASP ASVS 5.0, 6.2.5).
pub fn acceptable(email: &str) -> impl FnOnce(&SecretString, &()) -> garde::Result {
    move |password, ()| {
        bounded(password, &())?;
        let password = password.expose_secret();
        if password.chars().count() < CHARS_MIN {
            return Err(garde::Error::new(format!(
                "must have at least {CHARS_MIN} characters"
            )));
        }
        let lower = password.to_lowercase();
        if lower == email.to_lowercase() || COMMON.lines().any(|common| common == lower) {
            return Err(garde::Error::new("must not be one that is easily guessed"));
        }
        Ok(())
    }
}

/// Accepts what may be hashed at all: hashing must not cost more for a longer password.
pub fn bounded(password: &SecretString, _: &()) -> garde::Result {
    if password.expose_secret().len() > BYTES_MAX {
        return Err(garde::Error::new(format!(
            "must have at most {BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(&Config::default())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn only_the_password_that_was_hashed_is_right() {
        let passwords = passwords();
        let stored = passwords
            .hash("correct horse".into(), soon())
            .await
            .unwrap();

        let right = passwords
            .verify("correct horse".into(), Some(stored.clone()), soon())
            .await
            .unwrap();
        let wrong = passwords
            .verify("correct horsf".into(), Some(stored.clone()), soon())
            .await
            .unwrap();

        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        assert_eq!(
            (right, wrong),
            (Verdict::Right { stronger: None }, Verdict::Wrong)
        );
    }

    #[tokio::test]
    async fn an_account_that_does_not_exist_has_no_right_password() {
        let verdict = passwords()
            .verify("correct horse".into(), None, soon())
            .await
            .unwrap();

        assert_eq!(verdict, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_hash_cheaper_than_todays_comes_back_stronger() {
        let old = Hasher::new(Params::new(8192, 1, 1, None).unwrap());
        let stored = hash(&old, &"correct horse".into()).unwrap();

        let verdict = passwords()
            .verify("correct horse".into(), Some(stored), soon())
            .await
            .unwrap();

        let Verdict::Right {
            stronger: Some(stronger),
        } = verdict
        else {
            panic!("{verdict:?}")
        };
        assert!(stronger.contains("m=19456,t=2"), "{stronger}");
    }

    #[tokio::test]
    async fn a_login_that_gets_no_turn_in_time_is_told_to_come_back() {
        let passwords = passwords();
        let _busy = tokio::join!(passwords.turns.enter(soon()), passwords.turns.enter(soon()));

        let refused = passwords
            .hash("correct horse".into(), Instant::now())
            .await
            .unwrap_err();

        assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_new_password_is_refused_for_its_length_or_for_being_easily_guessed() {
        let accepted =
            |password: &str| acceptable("ann@example.test")(&password.into(), &()).is_ok();

        assert!(accepted("correct horse"));
        assert!(accepted(&"x".repeat(1024)));
        for refused in [
            "seven77",
            "Password1",
            "ann@example.TEST",
            &"x".repeat(1025),
        ] {
            assert!(!accepted(refused), "{refused}");
        }
    }
}
