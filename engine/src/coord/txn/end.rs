//! Owns the end of a transaction by its producer: Kafka's two tables of what may be ended when, old and new.
//! Does not know how markers are sent.
//! Invariant: an end that was answered is answered the same when it is asked again, where its version can tell.

use super::coordinator::{is_exhausted, Step, Txn, TxnCoordinator, TxnCtx, BUMPING_VERSION};
use super::records::TxnValue;
use super::types::{EndTxn, Producer, TxnError, TxnState};

impl TxnCoordinator {
    /// EndTxn. What is done gives the producer from now on, or [`Producer::NONE`] to clients that do not ask.
    pub fn end(&mut self, asked: &EndTxn, ctx: &mut TxnCtx) -> Result<Step, TxnError> {
        match asked.version {
            BUMPING_VERSION.. => self.end_bumping(asked, ctx),
            ..BUMPING_VERSION => self.end_plain(asked, ctx),
        }
    }

    /// By the first version of transactions the epoch stays as it is.
    fn end_plain(&mut self, asked: &EndTxn, ctx: &mut TxnCtx) -> Result<Step, TxnError> {
        let txn = self.named(&asked.of)?;
        let value = &txn.value;
        if asked.of.producer.id != value.producer.id {
            return Err(TxnError::InvalidProducerIdMapping);
        }
        if asked.of.producer.epoch != value.producer.epoch {
            return Err(TxnError::ProducerFenced);
        }
        match (value.state, asked.commit) {
            (TxnState::Ongoing, _) => {}
            (TxnState::CompleteCommit, true) | (TxnState::CompleteAbort, false) => {
                return Ok(Step::Done(Producer::NONE))
            }
            (TxnState::PrepareCommit | TxnState::PrepareAbort, _) => {
                return Err(TxnError::ConcurrentTransactions)
            }
            (TxnState::CompleteCommit, false)
            | (TxnState::CompleteAbort, true)
            | (TxnState::Empty | TxnState::Dead | TxnState::PrepareEpochFence, _) => {
                return Err(TxnError::InvalidTxnState)
            }
        }
        let value = TxnValue {
            client_version: 0,
            ..decided(value, asked.commit, value.producer.epoch, ctx)
        };
        let last_epoch = txn.last_epoch;
        self.write(&asked.of.transactional_id, value, last_epoch, ctx)?;
        Ok(Step::Done(Producer::NONE))
    }

    /// By the second version each end bumps the epoch: nothing of the old one is taken after it.
    fn end_bumping(&mut self, asked: &EndTxn, ctx: &mut TxnCtx) -> Result<Step, TxnError> {
        let txn = self.named(&asked.of)?;
        let value = &txn.value;
        let retry = is_retry(txn, asked.of.producer);
        let next = value.is_next(asked.of.producer);
        if asked.of.producer.id != value.producer.id && !retry && !next {
            return Err(TxnError::InvalidProducerIdMapping);
        }
        let current = asked.of.producer.epoch == value.producer.epoch;
        let allowed = match value.state {
            TxnState::Empty | TxnState::Ongoing | TxnState::Dead | TxnState::PrepareEpochFence => {
                current
            }
            // A client that was answered may be at the end of its next transaction before this one is over: it did not get to
            // add anything to it, and gives it up. It is the owner, not fenced, and has to wait.
            TxnState::PrepareCommit | TxnState::PrepareAbort => retry || current || next,
            TxnState::CompleteCommit | TxnState::CompleteAbort => retry || current,
        };
        if !allowed {
            return Err(TxnError::ProducerFenced);
        }
        match (value.state, asked.commit) {
            (TxnState::Ongoing, _) => {}
            (TxnState::CompleteCommit, true) | (TxnState::CompleteAbort, false) if retry => {
                return Ok(Step::Done(value.producer))
            }
            (TxnState::PrepareCommit | TxnState::PrepareAbort, _) => {
                return Err(TxnError::ConcurrentTransactions)
            }
            // Nothing was added to it, or its client does not know: the bump is what it asks for.
            (TxnState::Empty, false) => {}
            (TxnState::CompleteCommit | TxnState::CompleteAbort, false) if !retry => {}
            (TxnState::CompleteCommit | TxnState::CompleteAbort, _)
            | (TxnState::Empty | TxnState::Dead | TxnState::PrepareEpochFence, _) => {
                return Err(TxnError::InvalidTxnState)
            }
        }
        let before = value.producer;
        let next_producer_id = match is_exhausted(before.epoch) {
            false => -1,
            true => match ctx.spare_id {
                Some(id) => id,
                None => return Ok(Step::NeedsProducerId),
            },
        };
        let epoch = before.epoch.saturating_add(1);
        let started_ms = match value.state {
            TxnState::Ongoing => value.started_ms,
            TxnState::Empty
            | TxnState::PrepareCommit
            | TxnState::PrepareAbort
            | TxnState::CompleteCommit
            | TxnState::CompleteAbort
            | TxnState::Dead
            | TxnState::PrepareEpochFence => ctx.wall_ms,
        };
        let value = TxnValue {
            next_producer_id,
            started_ms,
            client_version: asked.version,
            ..decided(value, asked.commit, epoch, ctx)
        };
        self.write(&asked.of.transactional_id, value, before.epoch, ctx)?;
        Ok(Step::Done(match next_producer_id {
            0.. => Producer {
                id: next_producer_id,
                epoch: 0,
            },
            ..0 => Producer {
                id: before.id,
                epoch,
            },
        }))
    }
}

/// Whether a producer is what the transaction's was before its end.
fn is_retry(txn: &Txn, producer: Producer) -> bool {
    let value = &txn.value;
    let bumped = producer.id == value.producer.id
        && producer.epoch.checked_add(1) == Some(value.producer.epoch);
    // Where the epochs were used up, with a new id.
    let replaced = producer.id == value.previous_producer_id
        && producer.id != value.producer.id
        && producer.epoch == i16::MAX - 1
        && value.producer.epoch == 0;
    // An end by the first version bumped nothing: whoever has the epoch before is somebody else.
    value.client_version >= BUMPING_VERSION && (bumped || replaced)
}

/// The transaction once its outcome is certain.
fn decided(value: &TxnValue, commit: bool, epoch: i16, ctx: &TxnCtx) -> TxnValue {
    TxnValue {
        producer: Producer {
            id: value.producer.id,
            epoch,
        },
        previous_producer_id: value.producer.id,
        next_producer_id: -1,
        state: match commit {
            true => TxnState::PrepareCommit,
            false => TxnState::PrepareAbort,
        },
        updated_ms: ctx.wall_ms,
        ..value.clone()
    }
}
