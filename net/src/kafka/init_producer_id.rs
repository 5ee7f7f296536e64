//! InitProducerId (22), versions 0 to 4: a number for an idempotent producer.
//!
//! ```text
//!   v2  flexible     v3  the producer's id and epoch so far (KIP-360)
//! ```
//!
//! Kafka hands a producer without a transactional id a new producer id whatever it
//! says it had, and KIP-360 keeps that: only the producer knows which of its batches
//! are under way, so it raises its epoch by itself, and comes here once epochs run
//! out. What it says it had is only checked to be whole: an id with its epoch, or
//! neither. A transactional id is refused as FindCoordinator refuses it, where a
//! client asks first.

use crate::kafka::cluster;
use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, ask, of_group};
use crate::kafka::errors::Code;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use klamm_coord::core::cluster::NewProducer;
use klamm_engine::io::Io;

const NONE: i64 = -1;

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Err(code) = check(&request) {
        return write(Err(code));
    }
    write(match ask(&ctx, coordinator::InitProducerId {}).await {
        Ok(answer) => answer.map_err(|e| cluster::code(e.kind)),
        Err(gone) => Err(of_group(gone)),
    })
}

pub fn check(request: &InitProducerIdRequest) -> Result<(), Code> {
    match request.transactional_id.as_deref().map(|id| id.as_str()) {
        Some("") => return Err(Code::INVALID_REQUEST),
        Some(_) => return Err(Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        None => {}
    }
    let id_is_missing = request.producer_id.0 == NONE;
    let epoch_is_missing = i64::from(request.producer_epoch) == NONE;
    if id_is_missing == epoch_is_missing {
        Ok(())
    } else {
        Err(Code::INVALID_REQUEST)
    }
}

pub fn write(producer: Result<NewProducer, Code>) -> InitProducerIdResponse {
    match producer {
        Ok(producer) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(producer.id.0))
            .with_producer_epoch(producer.epoch.0),
        Err(code) => InitProducerIdResponse::default()
            .with_error_code(code.0)
            .with_producer_id(ProducerId(NONE))
            .with_producer_epoch(-1),
    }
}
