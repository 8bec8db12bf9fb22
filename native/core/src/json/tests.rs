use super::*;
use std::path::Path;

const DEPTH: usize = 512;

fn fault(input: &[u8]) -> Option<(Reason, usize)> {
    check(input, DEPTH)
        .err()
        .map(|fault| (fault.reason, fault.at))
}

fn one(input: &str) -> Envelope<'_> {
    match envelope(input.as_bytes(), DEPTH, 10) {
        Ok(Message::Single(envelope)) => envelope,
        other => panic!("{input}: {other:?}"),
    }
}

#[test]
fn every_file_of_the_suite_is_judged_as_its_name_says() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/json-test-suite/test_parsing");
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: no {}", folder.display());
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let result = check(&input, DEPTH);
        match name.as_bytes()[0] {
            b'y' => assert_eq!(result, Ok(()), "{name}"),
            b'n' => assert!(result.is_err(), "{name}"),
            _ => {}
        }
        let envelope = envelope(&input, DEPTH, usize::MAX);
        assert_eq!(envelope.err(), result.err(), "{name}");
        count += 1;
    }
    assert_eq!(count, 318);
}

#[test]
fn faults_have_a_reason_and_a_position() {
    use Reason::*;
    let cases: &[(&[u8], Reason, usize)] = &[
        (b"", UnexpectedEnd, 0),
        (b" ", UnexpectedEnd, 1),
        (b"\xef\xbb\xbf", UnexpectedEnd, 3),
        (b"\xef\xbb\xbf[}", UnexpectedByte, 4),
        (b"[1,]", UnexpectedByte, 3),
        (b"[1 2]", UnexpectedByte, 3),
        (b"[,1]", UnexpectedByte, 1),
        (b"{\"a\":1,}", UnexpectedByte, 7),
        (b"{\"a\" 1}", UnexpectedByte, 5),
        (b"{1:1}", UnexpectedByte, 1),
        (b"{} x", UnexpectedByte, 3),
        (b"[1}", UnexpectedByte, 2),
        (b"nul", UnexpectedEnd, 3),
        (b"nulx", UnexpectedByte, 3),
        (b"01", UnexpectedByte, 1),
        (b"-", UnexpectedEnd, 1),
        (b"-x", UnexpectedByte, 1),
        (b"-.0", UnexpectedByte, 1),
        (b"-e1", UnexpectedByte, 1),
        (b"1.", UnexpectedEnd, 2),
        (b"1.e1", UnexpectedByte, 2),
        (b"1e", UnexpectedEnd, 2),
        (b"1e+x", UnexpectedByte, 3),
        (b"[1e400]", NumberOutOfRange, 1),
        (b"\"ab", UnexpectedEnd, 3),
        (b"\"a\tb\"", UnexpectedByte, 2),
        (b"\"a\\", UnexpectedEnd, 3),
        (b"\"a\\x\"", InvalidEscape, 2),
        (b"\"\\u12", UnexpectedEnd, 5),
        (b"\"\\u12\"", InvalidEscape, 1),
        (b"\"\\ud800\\u12x4\"", InvalidEscape, 7),
        (b"\"a\xff\"", InvalidUtf8, 2),
        (b"\"\xc3\xa9\xe2\x82\"", InvalidUtf8, 3),
        (b"\"\xed\xa0\x80\"", InvalidUtf8, 1),
        (b"\xff", UnexpectedByte, 0),
    ];
    for (input, reason, at) in cases {
        let shown = String::from_utf8_lossy(input);
        assert_eq!(fault(input), Some((*reason, *at)), "{shown}");
    }
}

#[test]
fn limits_hold_at_and_give_way_over_them() {
    for depth in [1, 2, 512] {
        let nested = ["[".repeat(depth), "]".repeat(depth)].concat();
        assert_eq!(check(nested.as_bytes(), depth), Ok(()));
        let over = Fault {
            reason: Reason::DepthLimit,
            at: depth - 1,
        };
        assert_eq!(check(nested.as_bytes(), depth - 1), Err(over));
    }
    let longest = "1".repeat(lex::MAX_INTEGER_BYTES);
    assert_eq!(fault(longest.as_bytes()), None);
    let longer = format!("{longest}1");
    assert_eq!(
        fault(longer.as_bytes()),
        Some((Reason::NumberOutOfRange, 0))
    );
    let batch = b" [1, 2, 3]";
    assert!(envelope(batch, DEPTH, 3).is_ok());
    let over = Fault {
        reason: Reason::BatchLimit,
        at: 1,
    };
    assert_eq!(envelope(batch, DEPTH, 2), Err(over));
}

#[test]
fn a_hundred_thousand_brackets_need_no_stack() {
    let nested = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    assert_eq!(check(nested.as_bytes(), 100_000), Ok(()));
}

#[test]
fn messages_are_told_apart() {
    let version = r#""jsonrpc":"2.0""#;
    let cases = [
        (r#""id":1,"method":"a""#, Kind::Request),
        (r#""method":"a""#, Kind::Notification),
        (r#""id":1,"result":{}"#, Kind::Response),
        (r#""id":null,"error":{}"#, Kind::Response),
        (r#""error":{}"#, Kind::Invalid(Why::MissingId)),
        (r#""id":1"#, Kind::Invalid(Why::UnknownType)),
        (r#""id":1.0,"method":"a""#, Kind::Invalid(Why::InvalidId)),
        (r#""id":null,"method":"a""#, Kind::Invalid(Why::InvalidId)),
        (r#""id":[],"result":1"#, Kind::Invalid(Why::InvalidId)),
        (r#""id":1,"method":7"#, Kind::Invalid(Why::InvalidMethod)),
    ];
    for (members, kind) in cases {
        let input = format!("{{{version},{members}}}");
        assert_eq!(one(&input).kind, kind, "{input}");
    }
    let missing = Kind::Invalid(Why::MissingVersion);
    assert_eq!(one(r#"{"id":1,"method":"a"}"#).kind, missing);
    let wrong = Kind::Invalid(Why::WrongVersion);
    assert_eq!(one(r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#).kind, wrong);
    assert_eq!(one(r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#).kind, wrong);
    assert_eq!(one("17").kind, Kind::Invalid(Why::NotObject));
}

#[test]
fn names_are_compared_by_what_they_stand_for_and_the_last_one_counts() {
    let input =
        r#"{"jsonrpc":"2\u002e0","\u0069d":"a\nb","method":"x","meth\u006fd":"y","params":[]}"#;
    let envelope = one(input);
    assert_eq!(envelope.kind, Kind::Request);
    assert_eq!(envelope.params, Params::Array);
    assert_eq!(envelope.method.map(|method| method.raw), Some(&b"y"[..]));
    let Id::Text(id) = envelope.id else {
        panic!("{:?}", envelope.id)
    };
    assert_eq!(id.plain(&mut Vec::new()), b"a\nb");
}

#[test]
fn a_batch_is_cut_into_its_messages() {
    let input = br#" [ {"jsonrpc":"2.0","method":"a"} , 1,[[],{}] ]"#;
    let Ok(Message::Batch(elements)) = envelope(input, DEPTH, 10) else {
        panic!()
    };
    let raw: Vec<&[u8]> = elements.iter().map(|element| element.raw).collect();
    let expected: [&[u8]; 3] = [br#"{"jsonrpc":"2.0","method":"a"}"#, b"1", b"[[],{}]"];
    assert_eq!(raw, expected);
    assert_eq!(elements[0].envelope.kind, Kind::Notification);
    assert_eq!(elements[2].envelope.kind, Kind::Invalid(Why::NotObject));
    assert_eq!(envelope(b"[]", DEPTH, 10), Ok(Message::Batch(Vec::new())));
}

fn unescaped(input: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut output = Vec::new();
    let (rest, ascii) = lex::unescape(input, &mut output)?;
    assert!(!ascii || output.is_ascii());
    Some((output, rest))
}

#[test]
fn small_integers_are_those_of_the_grammar() {
    let cases: &[(&str, Option<(i64, &str)>)] = &[
        ("0,", Some((0, ","))),
        ("-0]", Some((0, "]"))),
        ("-17 ", Some((-17, " "))),
        ("123456789012345678", Some((123_456_789_012_345_678, ""))),
        ("1234567890123456789", None),
        ("01", None),
        ("-", None),
        ("1.5", None),
        ("1e5", None),
        ("", None),
    ];
    for (input, expected) in cases {
        let expected = expected.map(|(value, rest)| (value, rest.as_bytes()));
        assert_eq!(lex::small_integer(input.as_bytes()), expected, "{input}");
    }
}

#[test]
fn escapes_stand_for_what_the_rfc_says() {
    let input = br#"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83d-\ude00\ud83d\u0041" rest"#;
    let expected = "\"\\/\u{8}\u{c}\n\r\té😀\u{fffd}-\u{fffd}\u{fffd}A";
    assert_eq!(
        unescaped(input),
        Some((expected.as_bytes().to_vec(), &b" rest"[..]))
    );
}

proptest::proptest! {
    #[test]
    fn runs_stop_where_a_search_byte_by_byte_does(
        mut bytes in proptest::collection::vec(0x20u8..0x7f, 0..300),
        odd in proptest::collection::vec((0usize..300, proptest::num::u8::ANY), 0..4),
    ) {
        for (at, byte) in odd {
            if let Some(slot) = bytes.get_mut(at) { *slot = byte }
        }
        let stop = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
        let expected = bytes.iter().position(stop).unwrap_or(bytes.len());
        let (count, ascii) = lex::text_run(&bytes);
        proptest::prop_assert_eq!(count, expected);
        proptest::prop_assert_eq!(ascii, bytes[..expected].is_ascii());
    }

    #[test]
    fn strings_with_escapes_are_read_alike_by_both_readers(
        parts in proptest::collection::vec("[a-z]{0,12}|\\\\[nrtbf/\\\\\"]|\\\\u[0-9a-fA-F]{4}|é|😀", 0..40),
    ) {
        let text = format!("{}\"tail", parts.concat());
        let (token, rest) = lex::string(text.as_bytes()).unwrap();
        let (output, after) = unescaped(text.as_bytes()).unwrap();
        proptest::prop_assert_eq!(rest, after);
        let mut buffer = Vec::new();
        proptest::prop_assert_eq!(token.plain(&mut buffer), &output[..]);
        proptest::prop_assert!(std::str::from_utf8(&output).is_ok());
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        let checked = check(&bytes, 8);
        if let Err(fault) = checked {
            proptest::prop_assert!(fault.at <= bytes.len());
        }
        proptest::prop_assert_eq!(envelope(&bytes, 8, usize::MAX).err(), checked.err());
    }

    #[test]
    fn what_is_cut_short_ends_too_early(cut in 1usize..62) {
        let whole = br#"{"a":[1.5e+3,true,null,"\u00e9\n"],"b":{"c":-12,"d":false},"e" :"#;
        let fault = fault(&whole[..cut]);
        proptest::prop_assert_eq!(fault, Some((Reason::UnexpectedEnd, cut)));
    }
}
