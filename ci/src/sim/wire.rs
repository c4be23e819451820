//! Owns a client's connection: requests out, responses in, over the simulated network, in the real protocol.
//! Does not know what the requests are for, nor what to do when a connection is lost.
//! Invariant: a response is the one to its request, or the connection is lost.

use bytes::Bytes;
use millrace_engine::rt::{self, TcpStream};
use millrace_net::wire::{frame, Request, Str};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a client waits for an answer before it takes the connection for lost; virtual time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Largest response a client takes.
const FRAME_BYTES_MAX: usize = 64 << 20;

pub fn address() -> SocketAddr {
    ([10, 0, 0, 1], 9092).into()
}

/// The connection ended, was reset, or nothing came.
#[derive(Debug)]
pub struct Lost;

pub struct Conn {
    stream: TcpStream,
    next_correlation: i32,
}

impl Conn {
    pub async fn open() -> Result<Conn, Lost> {
        let stream = TcpStream::connect(address()).await.map_err(|_| Lost)?;
        Ok(Conn {
            stream,
            next_correlation: 1,
        })
    }

    /// Sends a request and gives its correlation id.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, Lost> {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let frame = frame::encode_request(correlation, Some(Str::from("sim")), request, version)
            .expect("clients send what can be encoded");
        match rt::timeout(PATIENCE, self.stream.write_all(&frame)).await {
            Some(Ok(())) => Ok(correlation),
            Some(Err(_)) | None => Err(Lost),
        }
    }

    /// Sends the beginning of a request and loses the connection.
    pub async fn tear<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        choice: u64,
    ) -> Result<(), Lost> {
        let frame = frame::encode_request(0, Some(Str::from("sim")), request, version)
            .expect("clients send what can be encoded");
        let part = choice as usize % frame.len();
        // It is lost whether that much could be written or not.
        let _lost = rt::timeout(PATIENCE, self.stream.write_all(&frame[..part])).await;
        Err(Lost)
    }

    /// The response to the oldest request that has none yet.
    pub async fn receive<R: Request>(
        &mut self,
        correlation: i32,
        version: i16,
    ) -> Result<R::Response, Lost> {
        let frame = match rt::timeout(PATIENCE, self.frame()).await {
            Some(frame) => frame?,
            None => return Err(Lost),
        };
        let decoded = frame::decode_response::<R>(frame, correlation, version);
        Ok(decoded.expect("the broker answers in the protocol, in order"))
    }

    pub async fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Lost> {
        let correlation = self.send(request, version).await?;
        self.receive::<R>(correlation, version).await
    }

    async fn frame(&mut self) -> Result<Bytes, Lost> {
        let size = self.exactly(4).await?;
        let size = i32::from_be_bytes(size[..].try_into().expect("four bytes"));
        let size = usize::try_from(size).expect("a frame has a size");
        assert!(size <= FRAME_BYTES_MAX, "a response of {size} bytes");
        self.exactly(size).await
    }

    async fn exactly(&mut self, count: usize) -> Result<Bytes, Lost> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.stream.read(&mut bytes[filled..]).await {
                Ok(0) | Err(_) => return Err(Lost),
                Ok(read) => filled += read,
            }
        }
        Ok(bytes.into())
    }
}
