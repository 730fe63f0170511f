//! gRPC on the wire, as far as a machine needs it: one message in, one or many out.
//!
//! Not built on generated servers, because routing between machines joins replies it does not understand, and because
//! a method that is not modelled must say its name.

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{HeaderMap, HeaderValue};
use prost::Message;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tonic::Status;

/// The largest message a machine takes.
const LIMIT: usize = 32 << 20;

/// What a method answers.
pub(super) enum Reply {
    /// One message, encoded.
    One(Vec<u8>),
    /// A stream of messages, encoded.
    Many(mpsc::Receiver<Result<Vec<u8>, Status>>),
}

pub(super) type Answer = Result<Reply, Status>;

/// Answers with one message.
pub(super) fn one(message: impl Message) -> Answer {
    Ok(Reply::One(message.encode_to_vec()))
}

/// Answers with a stream of the given messages.
pub(super) fn many(messages: impl IntoIterator<Item = impl Message>) -> Answer {
    let messages: Vec<_> = messages.into_iter().map(|message| message.encode_to_vec()).collect();
    let (send, receive) = mpsc::channel(messages.len().max(1));
    for message in messages {
        let _ = send.try_send(Ok(message));
    }
    Ok(Reply::Many(receive))
}

/// Decodes a request.
pub(super) fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|error| Status::internal(format!("failed to unmarshal the received message: {error}")))
}

/// Reads the one message of a request.
pub(super) async fn read<B>(body: B) -> Result<Vec<u8>, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, LIMIT + 5).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Status::resource_exhausted(format!("grpc: received message larger than max ({LIMIT})"))
        } else {
            Status::cancelled(error.to_string())
        }
    })?;
    let bytes = whole.to_bytes();
    let Some((head, payload)) = bytes.split_at_checked(5) else {
        return Err(Status::internal("the request holds no message"));
    };
    if head[0] != 0 {
        return Err(Status::unimplemented("grpc: compressed messages are not simulated"));
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if payload.len() != length {
        return Err(Status::unimplemented("the simulated machine takes exactly one message per request"));
    }
    Ok(payload.to_vec())
}

/// Turns an answer into an HTTP response.
pub(super) fn respond(answer: Answer) -> hyper::Response<ReplyBody> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut pending = VecDeque::new();
    let mut source = None;
    match answer {
        Ok(Reply::One(message)) => {
            pending.push_back(Frame::data(framed(message)));
            pending.push_back(Frame::trailers(trailers(&Status::ok(""))));
        }
        Ok(Reply::Many(messages)) => source = Some(messages),
        Err(status) => {
            let _ = status.add_header(&mut headers);
        }
    }
    let mut response = hyper::Response::new(ReplyBody { pending, source });
    *response.headers_mut() = headers;
    response
}

/// The body of a response.
pub(super) struct ReplyBody {
    pending: VecDeque<Frame<Bytes>>,
    source: Option<mpsc::Receiver<Result<Vec<u8>, Status>>>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(frame) = self.pending.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(source) = self.source.as_mut() else { return Poll::Ready(None) };
        let frame = match ready!(source.poll_recv(context)) {
            Some(Ok(message)) => Frame::data(framed(message)),
            Some(Err(status)) => {
                self.source = None;
                Frame::trailers(trailers(&status))
            }
            None => {
                self.source = None;
                Frame::trailers(trailers(&Status::ok("")))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_empty() && self.source.is_none()
    }
}

fn framed(message: Vec<u8>) -> Bytes {
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(0);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let _ = status.add_header(&mut trailers);
    trailers
}

/// Encodes `content` as field 1 of a message: what every reply's `messages` and `metadata` are.
pub(super) fn field_one(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x0a];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// Returns the contents of every field 1 of a message that has no other fields.
pub(super) fn fields_one(mut message: &[u8]) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    while let Some((&0x0a, rest)) = message.split_first() {
        let mut rest = rest;
        let Ok(length) = prost::encoding::decode_varint(&mut rest) else { break };
        let Some((content, rest)) = rest.split_at_checked(length as usize) else { break };
        contents.push(content.to_vec());
        message = rest;
    }
    contents
}
