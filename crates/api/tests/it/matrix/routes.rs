//! The request that each route of the matrix stands for.

use serde_json::json;

use super::{
    axes::Route,
    rig::{
        Caller::{Anyone, Customer, Staff},
        Rig, VISITOR,
    },
};
use crate::wire::Reply;

/// Products that always serve for the same: what is bought is not cached any more.
const CACHED: usize = 0;
const RECOMMENDED_FOR: usize = 1;
const BOUGHT: usize = 2;

impl Route {
    /// None without an answer.
    pub async fn ask(self, rig: &Rig) -> Option<Reply> {
        let key = format!("\"{:032x}\"", fastrand::u128(..));
        let key = [("Idempotency-Key", &*key)];
        let get = async |path: &str| rig.ask(Anyone, &format!("GET {path}"), &[], None).await;
        match self {
            Self::ProductUncached => get(&format!("/v1/products/{}", rig.unread_product())).await,
            Self::ProductCached => get(&format!("/v1/products/{}", rig.product(CACHED))).await,
            Self::Products => get("/v1/products?q=lamp&sort=price&limit=5").await,
            Self::Recommendations => {
                let product = rig.product(RECOMMENDED_FOR);
                get(&format!("/v1/products/{product}/recommendations")).await
            }
            Self::Session => rig.ask(Customer, "GET /v1/session", &[], None).await,
            Self::SignIn => {
                let (email, password) = VISITOR;
                let credentials = json!({ "email": email, "password": password });
                rig.ask(Anyone, "POST /v1/session", &[], Some(&credentials))
                    .await
            }
            Self::Orders => rig.ask(Customer, "GET /v1/orders?limit=5", &[], None).await,
            Self::PlaceOrder => {
                let product = rig.product(BOUGHT);
                let order = json!({ "lines": [{ "product_id": product, "quantity": 1 }] });
                rig.ask(Customer, "POST /v1/orders", &key, Some(&order))
                    .await
            }
            Self::StaffWrite => {
                let product = json!({
                    "sku": format!("matrix-{:032x}", fastrand::u128(..)), "name": "Anvil", "description": "",
                    "category": "tools", "price_cents": 100, "stock": 1,
                });
                rig.ask(Staff, "POST /v1/products", &key, Some(&product))
                    .await
            }
            Self::Events => {
                let seen = json!({ "name": "product_seen", "product_id": rig.product(CACHED) });
                let events = json!({ "events": [seen] });
                rig.ask(Anyone, "POST /v1/events", &[], Some(&events)).await
            }
            Self::Probes => match fastrand::bool() {
                true => get("/ready").await,
                false => get("/health").await,
            },
        }
    }
}
