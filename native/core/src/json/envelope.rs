//! The envelope of JSON-RPC messages: what a transport has to know of a message to pass it on,
//! answer it or keep it from a receiver.

use super::lex::{self, Number, Text};
use super::{Fault, Next, Reader, Reason, Value};

/// One document: a message or a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    /// A document that is no array.
    Single(Envelope<'a>),
    /// An array, element by element.
    Batch(Vec<Element<'a>>),
}

/// A message in a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Element<'a> {
    /// The message as it stands in the document.
    pub raw: &'a [u8],
    /// Its envelope.
    pub envelope: Envelope<'a>,
}

/// What the members of a message say about it. A message that is none has what could be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Envelope<'a> {
    /// What the message is.
    pub kind: Kind,
    /// The member `id`.
    pub id: Id<'a>,
    /// The member `method` if it is a string.
    pub method: Option<Text<'a>>,
    /// The member `params`.
    pub params: Params,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a method and an id.
    Request,
    /// It has no method, but a result or an error, and an id.
    Response,
    /// It has a method and no id.
    Notification,
    /// It is no JSON-RPC message.
    Invalid(Why),
}

/// Why a message is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is no object.
    NotObject,
    /// It has no member `jsonrpc`.
    MissingVersion,
    /// `jsonrpc` is not `"2.0"`.
    WrongVersion,
    /// `method` is not a string.
    InvalidMethod,
    /// `id` is neither a string nor an integer, or it is null in a request: MCP forbids that.
    InvalidId,
    /// It is a response without an id.
    MissingId,
    /// It has neither a method nor a result nor an error.
    UnknownType,
}

/// The id of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Id<'a> {
    /// There is none.
    Absent,
    /// It is null.
    Null,
    /// It is an integer.
    Integer(Number<'a>),
    /// It is a string.
    Text(Text<'a>),
    /// It is something that cannot be an id.
    Other,
}

/// What the member `params` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Params {
    /// It is absent.
    None,
    /// An object.
    Object,
    /// An array.
    Array,
    /// Anything else.
    Other,
}

/// Checks a document completely and reads the envelope of each message in it.
pub fn envelope(input: &[u8], max_depth: usize, max_batch: usize) -> Result<Message<'_>, Fault> {
    let mut reader = Reader::new(input, max_depth);
    match reader.begin()? {
        Value::Array => batch(&mut reader, max_batch).map(Message::Batch),
        value => {
            let envelope = single(&mut reader, value)?;
            reader.end()?;
            Ok(Message::Single(envelope))
        }
    }
}

/// Reads the elements of an array whose opening bracket has just been read, and what follows it.
fn batch<'a>(reader: &mut Reader<'a>, max: usize) -> Result<Vec<Element<'a>>, Fault> {
    let bracket = reader.at(reader.rest) - 1;
    let mut elements = Vec::new();
    let mut fresh = true;
    let mut count = 0;
    while !matches!(reader.next(fresh)?, Next::Closed) {
        fresh = false;
        let from = lex::skip_space(reader.rest);
        let value = reader.begin()?;
        let envelope = single(reader, value)?;
        let raw = from
            .get(..from.len() - reader.rest.len())
            .unwrap_or_default();
        count += 1;
        if count <= max {
            elements.push(Element { raw, envelope });
        }
    }
    // What is no JSON at all is worse, wherever that shows.
    reader.end()?;
    if count > max {
        return Err(Fault {
            reason: Reason::BatchLimit,
            at: bracket,
        });
    }
    Ok(elements)
}

fn single<'a>(reader: &mut Reader<'a>, value: Value<'a>) -> Result<Envelope<'a>, Fault> {
    let mut members = Members::default();
    if value == Value::Object {
        let mut fresh = true;
        while let Next::Member(name) = reader.next(fresh)? {
            fresh = false;
            let value = reader.value()?;
            members.put(name, value);
        }
        Ok(members.envelope())
    } else {
        reader.finish(value)?;
        Ok(Envelope {
            kind: Kind::Invalid(Why::NotObject),
            id: Id::Absent,
            method: None,
            params: Params::None,
        })
    }
}

/// The members that say what a message is.
#[derive(Default)]
struct Members<'a> {
    version: Option<Value<'a>>,
    id: Option<Value<'a>>,
    method: Option<Value<'a>>,
    params: Option<Value<'a>>,
    answer: bool,
}

impl<'a> Members<'a> {
    fn put(&mut self, name: Text<'a>, value: Value<'a>) {
        // `"\u0069d"` is the name `id`: compared as it stands, it would let a message past a
        // guard that goes by the envelope.
        match name.plain(&mut Vec::new()) {
            b"jsonrpc" => self.version = Some(value),
            b"id" => self.id = Some(value),
            b"method" => self.method = Some(value),
            b"params" => self.params = Some(value),
            b"result" | b"error" => self.answer = true,
            _ => {}
        }
    }

    fn envelope(&self) -> Envelope<'a> {
        let id = self.id();
        let kind = match self.kind(id) {
            Ok(kind) => kind,
            Err(why) => Kind::Invalid(why),
        };
        let method = match self.method {
            Some(Value::Text(method)) => Some(method),
            _ => None,
        };
        Envelope {
            kind,
            id,
            method,
            params: self.params(),
        }
    }

    fn kind(&self, id: Id<'a>) -> Result<Kind, Why> {
        match self.version {
            None => return Err(Why::MissingVersion),
            Some(Value::Text(version)) if is_two(version) => {}
            Some(_) => return Err(Why::WrongVersion),
        }
        match (self.method, id) {
            (Some(Value::Text(_)), Id::Absent) => Ok(Kind::Notification),
            (Some(Value::Text(_)), Id::Null | Id::Other) => Err(Why::InvalidId),
            (Some(Value::Text(_)), _) => Ok(Kind::Request),
            (Some(_), _) => Err(Why::InvalidMethod),
            (None, _) if !self.answer => Err(Why::UnknownType),
            (None, Id::Absent) => Err(Why::MissingId),
            (None, Id::Other) => Err(Why::InvalidId),
            (None, _) => Ok(Kind::Response),
        }
    }

    fn id(&self) -> Id<'a> {
        match self.id {
            None => Id::Absent,
            Some(Value::Null) => Id::Null,
            Some(Value::Number(number)) if !number.float => Id::Integer(number),
            Some(Value::Text(text)) => Id::Text(text),
            Some(_) => Id::Other,
        }
    }

    fn params(&self) -> Params {
        match self.params {
            None => Params::None,
            Some(Value::Object) => Params::Object,
            Some(Value::Array) => Params::Array,
            Some(_) => Params::Other,
        }
    }
}

fn is_two(version: Text<'_>) -> bool {
    version.plain(&mut Vec::new()) == b"2.0"
}
