//! Envelopes as maps.

use erlmcp_core::json::lex::Text;
use erlmcp_core::json::{self, Element, Envelope, Id, Kind, Message, Params, Why};
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};

use super::{atoms as json_atoms, big, faulty};
use crate::terms;

mod atoms {
    rustler::atoms! {
        batch,
        kind,
        why,
        id,
        method,
        params,
        request,
        response,
        notification,
        invalid,
        not_object,
        missing_version,
        wrong_version,
        invalid_method,
        invalid_id,
        missing_id,
        unknown_type,
        object,
        array,
        none,
        other,
    }
}

/// Reads the envelopes of a document.
pub(super) fn scan<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    max_depth: usize,
    max_batch: usize,
) -> NifResult<Term<'a>> {
    let found = match json::envelope(&input, max_depth, max_batch) {
        Ok(Message::Single(envelope)) => map(env, &envelope)?,
        Ok(Message::Batch(elements)) => {
            let elements = elements.iter().map(|element| pair(env, input, element));
            (
                atoms::batch(),
                elements.collect::<NifResult<Vec<Term<'a>>>>()?,
            )
                .encode(env)
        }
        Err(fault) => return Ok(faulty(env, fault)),
    };
    Ok((terms::ok(), found).encode(env))
}

fn pair<'a>(env: Env<'a>, input: Binary<'a>, element: &Element<'_>) -> NifResult<Term<'a>> {
    let at = element.raw.as_ptr().addr() - input.as_ptr().addr();
    let raw = input.make_subbinary(at, element.raw.len())?;
    Ok((raw, map(env, &element.envelope)?).encode(env))
}

fn map<'a>(env: Env<'a>, envelope: &Envelope<'_>) -> NifResult<Term<'a>> {
    let (kind, why) = kind(envelope.kind);
    let method = envelope.method.map(|method| binary(env, method));
    let mut pairs = vec![
        (atoms::kind(), kind.encode(env)),
        (atoms::id(), id(env, envelope.id)?),
        (
            atoms::method(),
            method.unwrap_or_else(|| terms::undefined().encode(env)),
        ),
        (atoms::params(), params(envelope.params).encode(env)),
    ];
    pairs.extend(why.map(|why| (atoms::why(), why.encode(env))));
    Term::map_from_pairs(env, &pairs)
}

fn kind(kind: Kind) -> (Atom, Option<Atom>) {
    let why = match kind {
        Kind::Request => return (atoms::request(), None),
        Kind::Response => return (atoms::response(), None),
        Kind::Notification => return (atoms::notification(), None),
        Kind::Invalid(why) => why,
    };
    let why = match why {
        Why::NotObject => atoms::not_object(),
        Why::MissingVersion => atoms::missing_version(),
        Why::WrongVersion => atoms::wrong_version(),
        Why::InvalidMethod => atoms::invalid_method(),
        Why::InvalidId => atoms::invalid_id(),
        Why::MissingId => atoms::missing_id(),
        Why::UnknownType => atoms::unknown_type(),
    };
    (atoms::invalid(), Some(why))
}

fn id<'a>(env: Env<'a>, id: Id<'_>) -> NifResult<Term<'a>> {
    match id {
        Id::Absent | Id::Other => Ok(terms::undefined().encode(env)),
        Id::Null => Ok(json_atoms::null().encode(env)),
        Id::Integer(number) => big::from_text(env, number.text).ok_or(Error::BadArg),
        Id::Text(text) => Ok(binary(env, text)),
    }
}

fn params(params: Params) -> Atom {
    match params {
        Params::None => atoms::none(),
        Params::Object => atoms::object(),
        Params::Array => atoms::array(),
        Params::Other => atoms::other(),
    }
}

fn binary<'a>(env: Env<'a>, text: Text<'_>) -> Term<'a> {
    terms::binary(env, text.plain(&mut Vec::new()))
}
