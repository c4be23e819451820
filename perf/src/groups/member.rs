//! Owns what the members of both protocols have in common: their connection, their orders, the board.
//! Does not know what they say.
//! Invariant: a member that ends has left the board.

use super::board::Board;
use crate::client::Client;
use crate::error::PerfError;
use millrace_net::wire::Request;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

/// A member does little; there are hundreds.
pub const MEMBER_STACK_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a member is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Say goodbye and end.
    Leave,
    /// End without a word.
    Vanish,
}

/// How a member ended that did as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// One member of the group.
pub struct Member {
    pub number: usize,
    pub address: SocketAddr,
    pub group: String,
    pub topic: String,
    /// Of the topic.
    pub partitions: usize,
    pub session_timeout_ms: i32,
    pub heartbeat_interval: Duration,
    pub board: Arc<Board>,
    pub orders: Receiver<Order>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.board.depart(self.number);
    }
}

impl Member {
    pub fn connect(&self) -> Result<Client, PerfError> {
        let mut client = Client::connect(self.address, CONNECT_TIMEOUT)?;
        client.negotiate()?;
        Ok(client)
    }

    pub fn ask<R: Request>(
        &self,
        client: &mut Client,
        request: &R,
    ) -> Result<R::Response, PerfError> {
        self.board.asked();
        client.call(request)
    }

    /// Waits for an order, at most so long.
    pub fn rest(&self, most: Duration) -> Option<Order> {
        match self.orders.recv_timeout(most) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            // Whoever measured has given up.
            Err(RecvTimeoutError::Disconnected) => Some(Order::Vanish),
        }
    }
}
