use proptest::prelude::*;

use super::*;

/// Feeds a stream in the given chunks, keeping the unfinished part as a reader would.
fn feed(splitter: &mut Splitter, chunks: &[&[u8]]) -> (Vec<Result<Vec<u8>, u64>>, Option<Error>) {
    let mut buf = Vec::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        let mut items = Vec::new();
        let (done, result) = splitter.split(&buf, &mut items);
        frames.extend(items.into_iter().map(|item| match item {
            Item::Frame { start, len } => Ok(buf[start..start + len].to_vec()),
            Item::Oversized(len) => Err(len),
        }));
        buf.drain(..done);
        if let Err(error) = result {
            return (frames, Some(error));
        }
    }
    (frames, None)
}

fn lines(max: usize, on_oversize: OnOversize) -> Splitter {
    Splitter::new(Framing::Line, max, on_oversize)
}

fn ok(bytes: &[u8]) -> Result<Vec<u8>, u64> {
    Ok(bytes.to_vec())
}

#[test]
fn splits_at_newlines_strips_cr_and_skips_empty_lines() {
    let mut splitter = lines(100, OnOversize::Close);
    let (frames, error) = feed(
        &mut splitter,
        &[b"one\r\n\n\r\ntwo\nth", b"ree\r", b"\nrest"],
    );
    assert_eq!(frames, [ok(b"one"), ok(b"two"), ok(b"three")]);
    assert_eq!(error, None);
}

#[test]
fn keeps_a_carriage_return_inside_a_line() {
    let (frames, _) = feed(&mut lines(100, OnOversize::Close), &[b"a\rb\n\r\r\n"]);
    assert_eq!(frames, [ok(b"a\rb"), ok(b"\r")]);
}

#[test]
fn a_frame_at_the_limit_passes_and_one_byte_more_does_not() {
    for stream in [&b"1234\n"[..], b"1234\r\n"] {
        let (frames, error) = feed(&mut lines(4, OnOversize::Close), &[stream]);
        assert_eq!((frames, error), (vec![ok(b"1234")], None));
    }
    for chunks in [
        &[&b"ok\n12345\n"[..]][..],
        &[b"ok\n", b"1234", b"5"],
        &[b"ok\n", b"1234\r", b"x"],
    ] {
        let (frames, error) = feed(&mut lines(4, OnOversize::Close), chunks);
        assert_eq!(
            (frames, error),
            (vec![ok(b"ok")], Some(Error::FrameTooLarge))
        );
    }
}

#[test]
fn discards_an_oversized_line_and_reports_its_length_in_place() {
    for chunks in [
        &[&b"a\n1234567\r\nb\n"[..]][..],
        &[b"a\n12345", b"67\r", b"\nb\n"],
        &[b"a\n", b"12345", b"", b"6", b"7", b"\r\nb", b"\n"],
    ] {
        let (frames, error) = feed(&mut lines(4, OnOversize::Discard), chunks);
        assert_eq!(frames, [ok(b"a"), Err(7), ok(b"b")], "{chunks:?}");
        assert_eq!(error, None);
    }
}

#[test]
fn splits_by_length_prefix() {
    let mut splitter = Splitter::new(Framing::Length4, 3, OnOversize::Discard);
    let chunks: &[&[u8]] = &[
        b"\0\0\0\x03abc\0\0\0\0\0\0",
        b"\0\x04",
        b"xx",
        b"xx\0\0\0\x01y",
    ];
    let (frames, error) = feed(&mut splitter, chunks);
    assert_eq!(frames, [ok(b"abc"), ok(b""), Err(4), ok(b"y")]);
    assert_eq!(error, None);
}

#[test]
fn refuses_an_oversized_length() {
    let mut splitter = Splitter::new(Framing::Length4, 3, OnOversize::Close);
    let (frames, error) = feed(&mut splitter, &[b"\0\0\0\x01a\xff\xff\xff\xff"]);
    assert_eq!(
        (frames, error),
        (vec![ok(b"a")], Some(Error::FrameTooLarge))
    );
}

#[test]
fn tells_the_size_of_a_length_prefixed_frame() {
    let splitter = Splitter::new(Framing::Length4, 100, OnOversize::Close);
    assert_eq!(splitter.wanted(b"\0\0\0"), None);
    assert_eq!(splitter.wanted(b"\0\0\0\x09abc"), Some(13));
}

#[test]
fn envelope_refuses_what_a_receiver_would_split_or_skip() {
    let envelope = |message| envelope(Framing::Line, 4, message);
    assert_eq!(envelope(b"a\nb"), Err(Error::EmbeddedNewline));
    assert_eq!(envelope(b"a\n"), Err(Error::EmbeddedNewline));
    assert_eq!(envelope(b""), Err(Error::EmptyMessage));
    assert_eq!(envelope(b"12345"), Err(Error::FrameTooLarge));
    assert!(envelope(b"1234").is_ok());
}

/// The meaning of newline framing, written without any regard to cost.
fn reference(stream: &[u8], max: usize) -> Vec<Result<Vec<u8>, u64>> {
    let mut lines: Vec<&[u8]> = stream.split(|&b| b == b'\n').collect();
    lines.pop();
    lines
        .into_iter()
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .map(|line| {
            if line.len() <= max {
                ok(line)
            } else {
                Err(line.len() as u64)
            }
        })
        .collect()
}

fn chunked(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| stream[pair[0]..pair[1]].to_vec())
        .collect()
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_lines(
        stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
        max in 1_usize..12,
    ) {
        let chunks = chunked(&stream, &cuts);
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let (frames, error) = feed(&mut lines(max, OnOversize::Discard), &chunks);
        prop_assert_eq!(error, None);
        prop_assert_eq!(frames, reference(&stream, max));
    }

    #[test]
    fn any_chunking_gives_the_same_length_prefixed_frames(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
        max in 1_usize..20,
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend_from_slice(&(message.len() as u32).to_be_bytes());
            stream.extend_from_slice(message);
        }
        let chunks = chunked(&stream, &cuts);
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let mut splitter = Splitter::new(Framing::Length4, max, OnOversize::Discard);
        let (frames, error) = feed(&mut splitter, &chunks);
        let expected: Vec<_> = messages
            .into_iter()
            .map(|m| if m.len() <= max { Ok(m) } else { Err(m.len() as u64) })
            .collect();
        prop_assert_eq!(error, None);
        prop_assert_eq!(frames, expected);
    }
}
