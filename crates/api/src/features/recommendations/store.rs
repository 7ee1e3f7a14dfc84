//! What sells best: the one statement of this feature.

use data::postgres::Reader;
use uuid::Uuid;

/// The products of which most pieces were sold in the latest thousand lines of orders, at most twenty. The ids of orders
/// rise with time, so an index brings the latest; where orders lie on several clusters, those beside the catalogue are a sample.
pub async fn best_sellers(db: &Reader) -> Result<Vec<Uuid>, data::Error> {
    db.fetch_all(|| {
        sqlx::query_scalar!(
            "select product_id
             from (select product_id, quantity from order_lines order by order_id desc limit 1000) as latest
             group by product_id
             order by sum(quantity) desc, product_id
             limit 20"
        )
    })
    .await
}
