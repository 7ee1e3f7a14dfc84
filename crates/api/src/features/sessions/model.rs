//! Users, and what they type to become one and to sign in.

use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::passwords;
use crate::http::{session::Role, text};

/// A user as the user sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub role: Role,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A user and the hash that its password must match.
pub struct Account {
    pub user: User,
    pub password_hash: String,
}

/// What one must say to become a user.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    #[garde(email, length(max = 254))]
    pub email: String,
    /// At least 8 characters, at most 1024 bytes, and not one of those that everybody tries first.
    #[garde(custom(passwords::acceptable(&self.email)))]
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// What one must say to sign in.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    #[garde(length(max = 254), custom(text::line))]
    pub email: String,
    #[garde(custom(passwords::bounded))]
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}
