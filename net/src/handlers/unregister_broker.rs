//! Owns UnregisterBroker: forgetting a broker that is gone for good.
//! Does not know how brokers come and go.
//! Invariant: the broker that answers is not gone.

use super::admin::Refusal;
use super::Outcome;
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use crate::wire::ErrorCode;

impl Outcome for UnregisterBrokerResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let image = shard.broker.image();
    let refusal = refusal(&shard.faces(&image), request.broker_id);
    UnregisterBrokerResponse {
        error_code: refusal.code.code(),
        error_message: Some(refusal.message.into()),
        ..Default::default()
    }
}

/// Why the broker stays, or is none.
fn refusal(faces: &Faces<'_>, id: i32) -> Refusal {
    match faces.image.broker(faces.node(id)) {
        Some(_) => Refusal::new(
            ErrorCode::InvalidRequest,
            format!("Broker {id} is the only node of the cluster, and the one that answers."),
        ),
        None => Refusal::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("There is no broker {id}."),
        ),
    }
}
