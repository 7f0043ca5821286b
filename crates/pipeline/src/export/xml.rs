//! An XML document, written from its beginning to its end.

use std::borrow::Cow;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// Attributes of an element: names and values as they are read, before any escape.
pub(super) type Attributes = Vec<(&'static str, String)>;

/// A document of which all elements so far are written. Text and values may hold anything: what
/// XML has no way to write becomes U+FFFD.
pub(super) struct Xml {
    writer: Writer<Vec<u8>>,
    open: Vec<&'static str>,
}

impl Xml {
    /// A document with its declaration, in UTF-8.
    pub fn new() -> Self {
        let mut xml = Self {
            writer: Writer::new_with_indent(Vec::new(), b' ', 1),
            open: Vec::new(),
        };
        xml.write(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml
    }

    /// The document type.
    pub fn doctype(&mut self, name: &str) {
        self.write(Event::DocType(BytesText::from_escaped(name)));
    }

    /// Begins an element.
    pub fn open(&mut self, name: &'static str, attributes: Attributes) {
        self.write(Event::Start(tag(name, attributes)));
        self.open.push(name);
    }

    /// Ends the element that was begun last.
    pub fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.write(Event::End(BytesEnd::new(name)));
        }
    }

    /// An element without content.
    pub fn empty(&mut self, name: &'static str, attributes: Attributes) {
        self.write(Event::Empty(tag(name, attributes)));
    }

    /// An element with nothing but text in it.
    pub fn text(&mut self, name: &'static str, attributes: Attributes, text: &str) {
        self.open(name, attributes);
        self.write(Event::Text(BytesText::new(&writable(text))));
        self.close();
    }

    /// The document, its open elements ended.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        let mut bytes = self.writer.into_inner();
        bytes.push(b'\n');
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }

    fn write(&mut self, event: Event<'_>) {
        // Memory takes whatever is written.
        let _ = self.writer.write_event(event);
    }
}

fn tag(name: &'static str, attributes: Attributes) -> BytesStart<'static> {
    let mut tag = BytesStart::new(name);
    for (name, value) in &attributes {
        tag.push_attribute((*name, &*writable(value)));
    }
    tag
}

/// Text with U+FFFD for each character that a document of XML 1.0 must not hold, not even as a
/// reference (XML 1.0, production 2).
fn writable(text: &str) -> Cow<'_, str> {
    let forbidden = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    if text.contains(forbidden) {
        text.replace(forbidden, "\u{fffd}").into()
    } else {
        text.into()
    }
}
