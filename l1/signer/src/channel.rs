//! A TCP connection between two parties that know each other's keys; every message on it is signed.
//!
//! ```text
//! client ▶ mark, client's key (32), client's nonce (32)
//! server ▶ server's key (32), server's nonce (32), signature of the channel as server (64)
//! client ▶ signature of the channel as client (64)
//! then each ▶ number (u64), round (1), session (32), body, signature (64)
//! ```
//! The channel is the hash of both keys and both nonces. A message's signature is over channel, sender, recipient, number, round,
//! session and the body's hash; numbers count up from 0 in each direction. So a message means something once, on one
//! connection, to one recipient. Frames are preceded by their length (u32, big endian); before both have signed, by at
//! most [`HANDSHAKE_BYTES_MAX`]. Nothing is encrypted: nothing here is secret.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use rand::rngs::OsRng;
use rand::RngCore;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::identity::{Identity, PartyId};
use crate::limits::{FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT};

const MARK: [u8; 5] = *b"ASCH\x01";
const HEAD_BYTES: usize = 8 + 1 + 32;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The network.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The other side closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// Nothing came in time.
    #[error("nothing came within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The other side speaks something else.
    #[error("the other side does not speak this protocol")]
    Protocol,
    /// The other side is somebody else, or cannot prove who it is.
    #[error("the other side is not {expected}")]
    Peer {
        /// Who it should be.
        expected: PartyId,
    },
    /// The other side's key is not one that is answered.
    #[error("{got} is not answered here")]
    Stranger {
        /// Its key.
        got: PartyId,
    },
    /// A message is not signed by the other side, or not the next one.
    #[error("a message is not the other side's next one")]
    Message,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub round: u8,
    /// What it belongs to; zeros for nothing.
    pub session: [u8; 32],
    /// Content.
    pub body: Vec<u8>,
}

/// A connection on which both sides have proved who they are.
#[derive(Debug)]
pub struct Channel {
    framed: Framed<TcpStream, LengthDelimitedCodec>,
    identity: Identity,
    peer: PartyId,
    id: [u8; 32],
    sent: u64,
    received: u64,
}

fn codec(most: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(4).max_frame_length(most).new_codec()
}

fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    OsRng.fill_bytes(&mut nonce);
    nonce
}

fn channel_id(client: PartyId, server: PartyId, nonces: ([u8; 32], [u8; 32])) -> [u8; 32] {
    let bytes = [MARK.as_slice(), &client.0, &server.0, &nonces.0, &nonces.1].concat();
    blake3::derive_key("assay l1 signer channel v1", &bytes)
}

fn as_server(channel: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("assay l1 signer channel server v1", channel)
}

fn as_client(channel: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("assay l1 signer channel client v1", channel)
}

/// What is signed of a message.
#[must_use]
pub fn message_digest(
    channel: &[u8; 32],
    (sender, recipient): (PartyId, PartyId),
    number: u64,
    message: &Message,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("assay l1 signer message v1");
    hasher.update(channel).update(&sender.0).update(&recipient.0).update(&number.to_le_bytes());
    hasher.update(&[message.round]).update(&message.session).update(blake3::hash(&message.body).as_bytes());
    hasher.finalize().into()
}

type Wire = Framed<TcpStream, LengthDelimitedCodec>;

async fn next(framed: &mut Wire) -> Result<Bytes, ChannelError> {
    Ok(framed.next().await.ok_or(ChannelError::Closed)??.freeze())
}

type Parts<const A: usize, const B: usize, const C: usize> = ([u8; A], [u8; B], [u8; C]);

/// Fixed parts of a handshake frame.
fn split<const A: usize, const B: usize, const C: usize>(
    frame: &[u8],
) -> Result<Parts<A, B, C>, ChannelError> {
    if frame.len() != A + B + C {
        return Err(ChannelError::Protocol);
    }
    let part = |from: usize, to: usize| &frame[from..to];
    let wrong = |_| ChannelError::Protocol;
    Ok((
        part(0, A).try_into().map_err(wrong)?,
        part(A, A + B).try_into().map_err(wrong)?,
        part(A + B, A + B + C).try_into().map_err(wrong)?,
    ))
}

impl Channel {
    /// Connects to `peer`.
    ///
    /// # Errors
    /// `Peer` if somebody else answers; `Closed` if it does not answer this key; the network's.
    pub async fn connect(address: &str, identity: &Identity, peer: PartyId) -> Result<Self, ChannelError> {
        let run = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Self::greet(Framed::new(stream, codec(HANDSHAKE_BYTES_MAX)), identity, peer).await
        };
        timeout(HANDSHAKE_TIMEOUT, run).await.map_err(|_| ChannelError::Timeout(HANDSHAKE_TIMEOUT))?
    }

    async fn greet(mut framed: Wire, identity: &Identity, peer: PartyId) -> Result<Self, ChannelError> {
        let own = nonce();
        let hello = [MARK.as_slice(), &identity.id().0, &own].concat();
        framed.send(Bytes::from(hello)).await?;
        let (server, theirs, signature) = split::<32, 32, 64>(&next(&mut framed).await?)?;
        let id = channel_id(identity.id(), peer, (own, theirs));
        if server != peer.0 || !peer.verifies(&as_server(&id), &signature) {
            return Err(ChannelError::Peer { expected: peer });
        }
        framed.send(Bytes::from(identity.sign(&as_client(&id)).to_vec())).await?;
        Ok(Self::open(framed, identity, peer, id))
    }

    /// Answers whoever connected, if `answered` says so.
    ///
    /// # Errors
    /// `Stranger`, `Peer`, `Protocol`, `Timeout`; the network's.
    pub async fn accept(
        stream: TcpStream,
        identity: &Identity,
        answered: impl Fn(PartyId) -> bool + Send,
    ) -> Result<Self, ChannelError> {
        let run = async move {
            stream.set_nodelay(true)?;
            let mut framed = Framed::new(stream, codec(HANDSHAKE_BYTES_MAX));
            let (mark, client, theirs) = split::<5, 32, 32>(&next(&mut framed).await?)?;
            let client = PartyId(client);
            if mark != MARK {
                return Err(ChannelError::Protocol);
            }
            if !answered(client) {
                return Err(ChannelError::Stranger { got: client });
            }
            let own = nonce();
            let id = channel_id(client, identity.id(), (theirs, own));
            let welcome = [identity.id().0.as_slice(), &own, &identity.sign(&as_server(&id))].concat();
            framed.send(Bytes::from(welcome)).await?;
            let (signature, [], []) = split::<64, 0, 0>(&next(&mut framed).await?)?;
            if !client.verifies(&as_client(&id), &signature) {
                return Err(ChannelError::Peer { expected: client });
            }
            Ok(Self::open(framed, identity, client, id))
        };
        timeout(HANDSHAKE_TIMEOUT, run).await.map_err(|_| ChannelError::Timeout(HANDSHAKE_TIMEOUT))?
    }

    fn open(mut framed: Wire, identity: &Identity, peer: PartyId, id: [u8; 32]) -> Self {
        framed.codec_mut().set_max_frame_length(FRAME_BYTES_MAX);
        Self { framed, identity: identity.clone(), peer, id, sent: 0, received: 0 }
    }

    /// Who is on the other side.
    #[must_use]
    pub fn peer(&self) -> PartyId {
        self.peer
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The network's; `Timeout` if the other side does not read it.
    pub async fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        let digest = message_digest(&self.id, (self.identity.id(), self.peer), self.sent, message);
        let mut frame = Vec::with_capacity(HEAD_BYTES + message.body.len() + 64);
        frame.extend(self.sent.to_le_bytes());
        frame.push(message.round);
        frame.extend(message.session);
        frame.extend(&message.body);
        frame.extend(self.identity.sign(&digest));
        self.sent += 1;
        let sent = timeout(IDLE_TIMEOUT, self.framed.send(Bytes::from(frame))).await;
        Ok(sent.map_err(|_| ChannelError::Timeout(IDLE_TIMEOUT))??)
    }

    /// The other side's next message, within `patience`.
    ///
    /// # Errors
    /// `Message` if it is not signed, not the next one or not for this channel; `Closed`, `Timeout`; the network's.
    pub async fn receive(&mut self, patience: Duration) -> Result<Message, ChannelError> {
        let frame = timeout(patience, next(&mut self.framed)).await;
        let frame = frame.map_err(|_| ChannelError::Timeout(patience))??;
        let (rest, signature) = frame.split_last_chunk::<64>().ok_or(ChannelError::Protocol)?;
        let (head, body) = rest.split_at_checked(HEAD_BYTES).ok_or(ChannelError::Protocol)?;
        let (number, round, session) = split::<8, 1, 32>(head)?;
        let message = Message { round: round[0], session, body: body.to_vec() };
        let number = u64::from_le_bytes(number);
        let digest = message_digest(&self.id, (self.peer, self.identity.id()), number, &message);
        if number != self.received || !self.peer.verifies(&digest, signature) {
            return Err(ChannelError::Message);
        }
        self.received += 1;
        Ok(message)
    }
}
