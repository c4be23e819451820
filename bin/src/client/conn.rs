//! Owns one connection to one broker: negotiated versions, framing, requests and answers in order.
//! Does not know topics or leaders.
//! Invariant: after any error the connection is not used again (`Cluster` drops it).

use super::error::ClientError;
use super::ANSWER_MAX;
use crate::units::HostPort;
use bytes::Bytes;
use millrace_net::wire::api_versions::{self, ApiVersion, ApiVersionsRequest};
use millrace_net::wire::{frame, ApiKey, ErrorCode, Request, Str};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The largest answer that is read; a fetch asks for far less.
const ANSWER_BYTES_MAX: usize = 160 << 20;

/// Newest version of Produce and Fetch in which topics go by name.
const NAMES_VERSION_MAX: i16 = 12;

/// ApiVersions of this version has been understood by every broker since Kafka 2.4; older ones say
/// so in version 0.
const API_VERSIONS_FIRST_TRY: i16 = 3;

const CLIENT_ID: &str = "millrace";

/// A connection that knows which versions its broker speaks.
pub struct Conn {
    stream: TcpStream,
    at: HostPort,
    served: Vec<ApiVersion>,
    correlation_id: i32,
    /// Requests whose answers are still to come, oldest first: key, version and correlation id.
    pending: VecDeque<(ApiKey, i16, i32)>,
}

impl Conn {
    /// Connects and asks for the versions.
    pub fn open(at: &HostPort) -> Result<Conn, ClientError> {
        let stream = connect(at).map_err(|source| ClientError::Connect {
            at: at.clone(),
            source,
        })?;
        let mut conn = Conn {
            stream,
            at: at.clone(),
            served: Vec::new(),
            correlation_id: 0,
            pending: VecDeque::new(),
        };
        conn.negotiate()?;
        Ok(conn)
    }

    fn negotiate(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("millrace"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
            ..Default::default()
        };
        for version in [API_VERSIONS_FIRST_TRY, 0] {
            self.send_at(&request, version)?;
            let (_, _, correlation_id) = self.pending.pop_front().expect("a request was just sent");
            let reply = self.read_frame()?;
            let (answer, _) = api_versions::decode_reply(reply, correlation_id, version)
                .map_err(|source| self.protocol(source))?;
            if answer.error_code == ErrorCode::UnsupportedVersion.code() && version > 0 {
                continue;
            }
            ClientError::check(
                || format!("{} refuses to name its versions", self.at),
                answer.error_code,
                None,
            )?;
            self.served = answer.api_keys;
            return Ok(());
        }
        Err(ClientError::broker(
            format!("{} refuses to name its versions", self.at),
            ErrorCode::UnsupportedVersion.code(),
            None,
        ))
    }

    /// The highest version that both sides speak and in which topics have names, as they have for this client.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        let ids_come_later = [ApiKey::Produce, ApiKey::Fetch].contains(&R::KEY);
        self.version_up_to::<R>(if ids_come_later {
            NAMES_VERSION_MAX
        } else {
            i16::MAX
        })
    }

    /// The highest version that both sides speak and that is none above `max`.
    pub fn version_up_to<R: Request>(&self, max: i16) -> Result<i16, ClientError> {
        let api = R::KEY.name();
        let ours = (R::VERSIONS.0, R::VERSIONS.1.min(max));
        let row = self.served.iter().find(|row| row.api_key == R::KEY.code());
        let row = row.ok_or_else(|| ClientError::NoApi {
            at: self.at.clone(),
            api,
        })?;
        let theirs = (row.min_version, row.max_version);
        let best = ours.1.min(theirs.1);
        if best < ours.0.max(theirs.0) {
            return Err(ClientError::NoVersion {
                at: self.at.clone(),
                api,
                theirs,
                ours,
            });
        }
        Ok(best)
    }

    /// Sends a request in the best version; `receive` takes the answer.
    pub fn send<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        self.send_at(request, self.version::<R>()?)
    }

    /// Sends a request that is never answered (Produce with acks=0).
    pub fn send_unanswered<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        self.send(request)?;
        self.pending.pop_back();
        Ok(())
    }

    fn send_at<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let bytes = frame::encode_request(
            self.correlation_id,
            Some(Str::from_static(CLIENT_ID)),
            request,
            version,
        )
        .map_err(ClientError::Encode)?;
        self.stream
            .write_all(&bytes)
            .map_err(|source| self.io(source))?;
        self.pending
            .push_back((R::KEY, version, self.correlation_id));
        Ok(())
    }

    /// The answer to the oldest request sent, which must have been an `R`.
    pub fn receive<R: Request>(&mut self) -> Result<R::Response, ClientError> {
        let (key, version, correlation_id) =
            self.pending.pop_front().expect("a request is under way");
        assert_eq!(
            key,
            R::KEY,
            "answers are taken in the order of their requests"
        );
        let reply = self.read_frame()?;
        frame::decode_response::<R>(reply, correlation_id, version)
            .map_err(|source| self.protocol(source))
    }

    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.send(request)?;
        self.receive::<R>()
    }

    /// A call in a version that `version` or `version_up_to` gave.
    pub fn call_at<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        self.send_at(request, version)?;
        self.receive::<R>()
    }

    fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        let mut prefix = [0; frame::SIZE_PREFIX_BYTES];
        self.stream
            .read_exact(&mut prefix)
            .map_err(|source| self.io(source))?;
        let size = frame::peek_size(&prefix, ANSWER_BYTES_MAX)
            .map_err(|source| self.protocol(source))?
            .expect("the prefix is complete");
        // Grows with what arrives, so that a wrong size alone does not take memory.
        let mut body = Vec::new();
        (&mut self.stream)
            .take(size as u64)
            .read_to_end(&mut body)
            .map_err(|source| self.io(source))?;
        if body.len() < size {
            return Err(self.io(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        Ok(Bytes::from(body))
    }

    fn io(&self, source: io::Error) -> ClientError {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", ANSWER_MAX.as_secs()),
            ),
            io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "the broker closed it"),
            _ => source,
        };
        ClientError::Io {
            at: self.at.clone(),
            source,
        }
    }

    fn protocol(&self, source: millrace_net::wire::WireError) -> ClientError {
        ClientError::Protocol {
            at: self.at.clone(),
            source,
        }
    }
}

fn connect(at: &HostPort) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{} has no address", at.host));
    for address in (at.host.as_str(), at.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_MAX))?;
                stream.set_write_timeout(Some(ANSWER_MAX))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
