//! Strings and floats as JSON.

use super::lex::text_run;

/// Whether a string is ASCII that needs no escapes.
pub fn is_plain(text: &[u8]) -> bool {
    text_run(text) == (text.len(), true)
}

/// Writes a string in quotes; `false` where it is not UTF-8.
pub fn write_string(text: &[u8], output: &mut Vec<u8>) -> bool {
    output.push(b'"');
    if is_plain(text) {
        output.extend_from_slice(text);
    } else if std::str::from_utf8(text).is_ok() {
        write_escaped(text, output);
    } else {
        return false;
    }
    output.push(b'"');
    true
}

/// Writes what is known to be UTF-8.
fn write_escaped(mut text: &[u8], output: &mut Vec<u8>) {
    loop {
        let (count, _) = text_run(text);
        let (run, rest) = text.split_at(count.min(text.len()));
        output.extend_from_slice(run);
        let [byte, rest @ ..] = rest else { return };
        match byte {
            b'"' => output.extend_from_slice(b"\\\""),
            b'\\' => output.extend_from_slice(b"\\\\"),
            0x08 => output.extend_from_slice(b"\\b"),
            b'\t' => output.extend_from_slice(b"\\t"),
            b'\n' => output.extend_from_slice(b"\\n"),
            0x0c => output.extend_from_slice(b"\\f"),
            b'\r' => output.extend_from_slice(b"\\r"),
            byte => {
                let hex = |digit: u8| digit + if digit < 10 { b'0' } else { b'a' - 10 };
                output.extend_from_slice(b"\\u00");
                output.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
            }
        }
        text = rest;
    }
}

/// Writes the shortest text that stands for this float, as the VM does: `100.0` rather than
/// `1.0e2`, but `1.0e3`, and always with an exponent where floats no longer count in ones.
pub fn write_float(float: f64, output: &mut Vec<u8>) {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let fraction = if digits.contains('.') { "" } else { ".0" };
    let scientific = format!("{digits}{fraction}e{exponent}");
    if float.abs() < (1u64 << f64::MANTISSA_DIGITS) as f64 {
        let plain = float.to_string();
        let fraction = if plain.contains('.') { "" } else { ".0" };
        if plain.len() + fraction.len() <= scientific.len() {
            output.extend_from_slice(plain.as_bytes());
            output.extend_from_slice(fraction.as_bytes());
            return;
        }
    }
    output.extend_from_slice(scientific.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{write_float, write_string};

    fn string(text: &[u8]) -> Option<String> {
        let mut output = Vec::new();
        let valid = write_string(text, &mut output);
        valid.then(|| String::from_utf8(output).unwrap())
    }

    #[test]
    fn only_what_has_to_be_is_escaped() {
        let text = "/é\u{7f}\"\\\u{8}\t\n\u{c}\r\u{0}\u{1f}😀\u{2028}â";
        let expected = "\"/é\u{7f}\\\"\\\\\\b\\t\\n\\f\\r\\u0000\\u001f😀\u{2028}â\"";
        assert_eq!(string(text.as_bytes()).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        assert_eq!(string(b"a\xffb\xe2\x82\"\xf0\x9f\x98"), None);
    }

    #[test]
    fn floats_are_written_as_the_vm_writes_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            (1000.0, "1.0e3"),
            (1234.5, "1234.5"),
            (0.0001, "0.0001"),
            (0.00012, "1.2e-4"),
            (9007199254740991.0, "9007199254740991.0"),
            (9007199254740992.0, "9.007199254740992e15"),
            (-1.0e100, "-1.0e100"),
            (5e-324, "5.0e-324"),
            (1.7976931348623157e308, "1.7976931348623157e308"),
        ];
        for (float, expected) in cases {
            let mut output = Vec::new();
            write_float(float, &mut output);
            assert_eq!(output, expected.as_bytes());
        }
    }
}
