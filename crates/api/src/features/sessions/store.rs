//! Every statement on `users`. An email is compared without case, as its unique index does.

use data::postgres::{Reader, Writer};
use uuid::Uuid;

use super::model::{Account, User};
use crate::http::session::Role;

pub async fn insert(db: &Writer, email: &str, password_hash: &str) -> Result<User, data::Error> {
    let id = Uuid::now_v7();
    db.fetch_one(|| {
        sqlx::query_as!(
            User,
            r#"insert into users (id, email, password_hash) values ($1, $2, $3)
               returning id, email, role as "role: Role", created_at"#,
            id,
            email,
            password_hash,
        )
    })
    .await
}

pub async fn find(db: &Reader, id: Uuid) -> Result<Option<User>, data::Error> {
    db.fetch_optional(|| {
        sqlx::query_as!(
            User,
            r#"select id, email, role as "role: Role", created_at from users where id = $1"#,
            id
        )
    })
    .await
}

pub async fn find_account(db: &Reader, email: &str) -> Result<Option<Account>, data::Error> {
    let row = db
        .fetch_optional(|| {
            sqlx::query!(
                r#"select id, email, role as "role: Role", created_at, password_hash
                   from users where lower(email) = lower($1)"#,
                email,
            )
        })
        .await?;
    Ok(row.map(|row| Account {
        user: User {
            id: row.id,
            email: row.email,
            role: row.role,
            created_at: row.created_at,
        },
        password_hash: row.password_hash,
    }))
}

/// Replaces a hash by a stronger one of the same password, unless the password was changed meanwhile.
pub async fn update_password_hash(
    db: &Writer,
    id: Uuid,
    old: &str,
    new: &str,
) -> Result<(), data::Error> {
    db.execute(|| {
        sqlx::query!(
            "update users set password_hash = $3 where id = $1 and password_hash = $2",
            id,
            old,
            new
        )
    })
    .await?;
    Ok(())
}
