//! What a message is to a queue: whether it may overtake others, and which it may not.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Fault, Next, Reader, Value};

/// Deeper nesting is not looked into: such a message is [`Role::Other`].
const MAX_DEPTH: usize = 512;

/// What a message is to a queue. The numbers stand for ids of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A request.
    Request(u64),
    /// A request `ping`.
    Ping,
    /// `notifications/cancelled`, of the request with this id.
    Cancellation(Option<u64>),
    /// An error, or a result without members, which is the answer to `ping`.
    Answer,
    /// `notifications/progress`.
    Progress,
    /// Anything else, what is no message included.
    Other,
}

impl Role {
    /// Reads as little of the message as can tell.
    pub fn of(message: &[u8]) -> Self {
        read(message).unwrap_or(Role::Other)
    }

    /// Whether it overtakes others where its sender has not said.
    pub fn is_urgent(self) -> bool {
        matches!(self, Role::Ping | Role::Cancellation(_) | Role::Answer)
    }
}

fn read(message: &[u8]) -> Result<Role, Fault> {
    let mut reader = Reader::new(message, MAX_DEPTH);
    if reader.begin()? != Value::Object {
        return Ok(Role::Other);
    }
    let (mut id, mut method, mut cancelled) = (None, None, None);
    let mut fresh = true;
    while let Next::Member(name) = reader.next(fresh)? {
        fresh = false;
        match name.plain(&mut Vec::new()) {
            b"result" => return result(&mut reader),
            b"error" if reader.value()? != Value::Null => return Ok(Role::Answer),
            b"error" => {}
            b"id" => id = key(reader.value()?),
            b"params" => cancelled = request_id(&mut reader)?,
            b"method" => {
                let Value::Text(text) = reader.value()? else {
                    return Ok(Role::Other);
                };
                match text.plain(&mut Vec::new()) {
                    b"ping" => return Ok(Role::Ping),
                    b"notifications/progress" => return Ok(Role::Progress),
                    b"notifications/cancelled" => method = Some(true),
                    _ => method = Some(false),
                }
            }
            _ => {
                reader.value()?;
            }
        }
        match (method, id, cancelled) {
            (Some(false), Some(id), _) => return Ok(Role::Request(id)),
            (Some(true), _, Some(id)) => return Ok(Role::Cancellation(Some(id))),
            _ => {}
        }
    }
    Ok(match method {
        Some(true) => Role::Cancellation(None),
        _ => Role::Other,
    })
}

fn result(reader: &mut Reader<'_>) -> Result<Role, Fault> {
    let empty = reader.begin()? == Value::Object && matches!(reader.next(true)?, Next::Closed);
    Ok(if empty { Role::Answer } else { Role::Other })
}

/// What the member `requestId` of an object stands for.
fn request_id(reader: &mut Reader<'_>) -> Result<Option<u64>, Fault> {
    let value = reader.begin()?;
    if value != Value::Object {
        reader.finish(value)?;
        return Ok(None);
    }
    let mut id = None;
    let mut fresh = true;
    while let Next::Member(name) = reader.next(fresh)? {
        fresh = false;
        let is_id = name.plain(&mut Vec::new()) == b"requestId";
        let value = reader.value()?;
        if is_id {
            id = key(value);
        }
    }
    Ok(id)
}

/// Two ids may have the same key: then a cancellation overtakes less than it could.
fn key(id: Value<'_>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    match id {
        Value::Number(number) => number.text.hash(&mut hasher),
        Value::Text(text) => (text.plain(&mut Vec::new()), 0u8).hash(&mut hasher),
        _ => return None,
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_overtakes() {
        let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(Role::of(ping), Role::Ping);
        let pong = br#"{"jsonrpc":"2.0","id":1,"result":{ }}"#;
        assert_eq!(Role::of(pong), Role::Answer);
        let result = br#"{"id":1,"jsonrpc":"2.0","result":{"tools":[]}}"#;
        assert_eq!(Role::of(result), Role::Other);
        let error = br#"{"error":{"code":-32601,"message":"no"},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(Role::of(error), Role::Answer);
        let progress = br#"{"method":"notifications/progress","params":{}}"#;
        assert_eq!(Role::of(progress), Role::Progress);
    }

    #[test]
    fn a_cancellation_names_its_request_wherever_the_members_stand() {
        let calls: [&[u8]; 2] = [
            br#"{"id":7,"jsonrpc":"2.0","method":"tools/call","params":{"requestId":8}}"#,
            br#"{"params":{"requestId":8},"method":"tools/call","id":7}"#,
        ];
        let cancellations: [&[u8]; 2] = [
            br#"{"method":"notifications/cancelled","params":{"requestId":7}}"#,
            br#"{"params":{"reason":"x","\u0072equestId":7},"method":"notifications\/cancelled"}"#,
        ];
        for (call, cancellation) in calls.iter().zip(cancellations) {
            let (Role::Request(id), Role::Cancellation(cancelled)) =
                (Role::of(call), Role::of(cancellation))
            else {
                panic!("not told apart");
            };
            assert_eq!(Some(id), cancelled);
        }
        let text = br#"{"method":"notifications/cancelled","params":{"requestId":"7"}}"#;
        assert_ne!(Role::of(text), Role::of(cancellations[0]));
    }

    #[test]
    fn what_is_no_message_overtakes_nothing() {
        for bytes in [
            &b""[..],
            b"[",
            b"[1]",
            b"{\"method\":",
            b"{}",
            b"\xff",
            b"{\"error\":null}",
        ] {
            assert_eq!(Role::of(bytes), Role::Other);
        }
    }
}
