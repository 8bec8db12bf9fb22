//! JSON between binaries and terms.
