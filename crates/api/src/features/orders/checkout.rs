//! The way of an order from its request to its answer: placed, paid, answered. Each step commits together with the point that it
//! has reached, so whoever has the claim goes on from there, in whichever process: the client that asks again, or
//! [`super::completing`] in its place.
//!
//! What happens outside is safe to do twice: the provider knows a payment by its order, and an order by its id is kept, paid and
//! cancelled once.

use axum::extract::FromRef;
use data::{
    idempotency::{Answer, Claim},
    outbox,
    postgres::{Db, Place, Reach, Tx},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use worker::NewJob;

use super::{
    jobs::{FulfilOrder, SendConfirmation},
    model::{NewOrder, Order, OrderError, OrderLine, Status, pieces},
    payments::{PaymentError, Payments},
    placing::Placed,
    store, told,
};
use crate::{
    features::products::{self, ProductCache},
    http::{
        ApiError, ApiResult, Caller, Keyed,
        idempotency::{self, Outcome},
        session::Session,
    },
    jobs,
    state::AppState,
};

/// What an order takes besides databases.
#[derive(Clone)]
pub struct Checkout {
    /// The catalogue shows what is left now, not what was left when it was last asked.
    products: ProductCache,
    /// Who is paid, if anybody is.
    payments: Option<Payments>,
}

impl FromRef<AppState> for Checkout {
    fn from_ref(state: &AppState) -> Self {
        Self {
            products: state.products.clone(),
            payments: state.payments.clone(),
        }
    }
}

/// One go at an order, by whoever has claimed it.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub db: &'a Db,
    pub claim: &'a Claim,
    /// For whom the provider is asked, and until when.
    pub caller: &'a Caller,
}

impl Attempt<'_> {
    pub(super) fn customer_id(&self) -> Uuid {
        self.claim.caller()
    }
}

/// How far an order has come.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Point {
    /// Its stock is held, and it is to be kept on another cluster.
    Held { id: Uuid, lines: Vec<OrderLine> },
    /// It is kept, and what it costs is to be paid.
    Placed { id: Uuid },
}

impl Checkout {
    /// Does once what a customer asks for.
    pub async fn order(
        &self,
        customer: &Session,
        db: &Db,
        caller: &Caller,
        new: Keyed<NewOrder>,
    ) -> ApiResult<Outcome> {
        new.once(db, customer.user_id, async |new, claim| {
            let at = Attempt { db, claim, caller };
            self.run(at, Some(&new)).await
        })
        .await
    }

    /// Goes on from where the order stands. Only from the beginning is it needed what was ordered.
    pub async fn run(&self, at: Attempt<'_>, new: Option<&NewOrder>) -> ApiResult<Answer> {
        let placed = match (at.claim.point()?, new) {
            (Some(Point::Placed { id }), _) => Placed::Unpaid(find(at, id).await?),
            (Some(Point::Held { id, lines }), _) => self.keep_held(at, id, lines).await?,
            (None, Some(new)) => self.place(at, new).await?,
            (None, None) => return Err(ApiError::internal("nothing was begun or ordered")),
        };
        match placed {
            Placed::Answered(answer) => Ok(answer),
            Placed::Unpaid(order) => self.settle(at, order).await,
        }
    }

    /// What is left of these products is not what it was.
    pub(super) async fn forget(&self, at: Attempt<'_>, lines: &[OrderLine]) {
        let ids = lines.iter().map(|line| line.product_id);
        self.products.forget(at.db, ids).await;
    }

    /// Whether orders are paid, or placing them is all.
    pub(super) fn is_paid(&self) -> bool {
        self.payments.is_some()
    }

    /// Has the order paid, and answers. One that is found paid or cancelled was left between that and the answer.
    async fn settle(&self, at: Attempt<'_>, mut order: Order) -> ApiResult<Answer> {
        if let (Some(payments), Status::Placed) = (&self.payments, order.status) {
            let paid = payments.pay(order.id, order.total_cents, at.caller).await;
            order.status = match paid {
                Ok(_) => Status::Paid,
                Err(PaymentError::Declined) => Status::Cancelled,
                Err(PaymentError::Failed(error)) => return Err(error.into()),
            };
        }
        let is_cancelled = order.status == Status::Cancelled;
        let answer = match is_cancelled {
            false => created(&order)?,
            true => idempotency::problem(&OrderError::Declined.into(), &at.caller.id),
        };
        close(at, &order, &answer).await?;
        if is_cancelled {
            self.forget(at, &order.lines).await;
        }
        Ok(answer)
    }
}

/// Writes down what became of the order, gives the stock of a cancelled one back, and finishes the claim.
async fn close(at: Attempt<'_>, order: &Order, answer: &Answer) -> Result<(), data::Error> {
    let home = at.db.write();
    home.transaction(|mut tx| async move {
        if order.status == Status::Cancelled {
            let (ids, quantities) = pieces(&order.lines);
            products::give_back(&mut tx, &ids, &quantities).await?;
        }
        match tx.for_key(at.customer_id())? {
            Reach::Here(mut tx) => {
                store::set_status(&mut tx, order.id, order.status).await?;
                at.claim.finish(&mut tx, answer).await?;
                tell(&mut tx, at, order).await?;
                tx.commit(()).await
            }
            // First comes the proof that the claim is still ours. Cut off between the two commits, the order is found as it is by
            // whoever resumes it.
            Reach::Elsewhere(mut tx) => {
                at.claim.finish(&mut tx, answer).await?;
                tell(&mut tx, at, order).await?;
                let shard = at.db.shard(at.customer_id()).write();
                shard
                    .transaction(|mut tx| async move {
                        store::set_status(&mut tx, order.id, order.status).await?;
                        tx.commit(()).await
                    })
                    .await?;
                tx.commit(()).await
            }
        }
    })
    .await
}

/// Says what has become of an order, with the rest of the transaction at home, or not.
async fn tell<P: Place>(tx: &mut Tx<P>, at: Attempt<'_>, order: &Order) -> Result<(), data::Error> {
    outbox::emit(tx, [told::order(at.customer_id(), order)]).await?;
    follow_up(tx, at, order).await
}

/// Has done what follows from an order that stands, with the rest of the transaction at home, or not.
pub(super) async fn follow_up<P: Place>(
    tx: &mut Tx<P>,
    at: Attempt<'_>,
    order: &Order,
) -> Result<(), data::Error> {
    if order.status == Status::Cancelled {
        return Ok(());
    }
    let (order_id, customer_id) = (order.id, at.customer_id());
    let jobs = [
        NewJob::of(&SendConfirmation {
            order_id,
            customer_id,
        }),
        NewJob::of(&FulfilOrder {
            order_id,
            customer_id,
        }),
    ];
    let jobs = jobs.map(|job| job.origin(jobs::origin(at.caller)));
    worker::enqueue_all(tx, jobs).await?;
    Ok(())
}

/// The answer to an order that stands.
pub(super) fn created(order: &Order) -> ApiResult<Answer> {
    let location =
        HeaderValue::try_from(format!("/v1/orders/{}", order.id)).map_err(ApiError::internal)?;
    idempotency::json(StatusCode::CREATED, [(header::LOCATION, location)], order)
}

async fn find(at: Attempt<'_>, id: Uuid) -> ApiResult<Order> {
    let shard = at.db.shard(at.customer_id()).write().reader();
    let found = store::find(&shard, id).await?;
    found.ok_or_else(|| ApiError::internal("an order that was placed is gone"))
}
