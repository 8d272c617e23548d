//! Jinja as `apply_chat_template` of transformers sets it up: `trim_blocks`, `lstrip_blocks`, loop controls, methods of
//! Python's strings and dictionaries, `raise_exception`, `strftime_now`, a `tojson` without HTML escapes, and the block
//! `generation`, which marks what the assistant wrote and changes nothing in the text.

use std::{borrow::Cow, io};

use minijinja::{
    Environment, Error, ErrorKind, Output, State, escape_formatter,
    syntax::SyntaxConfig,
    value::{Kwargs, Value, ValueKind},
};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Returns an environment for the templates of checkpoints.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    // In Python, text is a sequence too, and so is a dictionary.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.set_formatter(write_as_python);
    Ok(environment)
}

/// Writes `True`, `False` and `None` as Python spells them.
fn write_as_python(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let word = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return escape_formatter(out, state, value),
    };
    Ok(out.write_str(word)?)
}

/// Python's `len`. What is not defined has the length 0 in Jinja2.
fn length(value: &Value) -> Result<usize, Error> {
    let found = if value.is_undefined() { Some(0) } else { value.len() };
    found.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("a {} has no length", value.kind())))
}

/// The local time in a format of C's `strftime`, such as `%d %b %Y`.
fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
}

/// Python's `json.dumps`: keys in their order unless `sort_keys`, characters as they are unless `ensure_ascii`.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| {
        Error::new(ErrorKind::InvalidOperation, "tojson: the value cannot be written as JSON").with_source(error)
    };
    let mut json = serde_json::to_value(value).map_err(failed)?;
    if sort == Some(true) {
        json.sort_all_objects();
    }
    let item = if indent.is_some() { "," } else { ", " };
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ => (item.into(), ": ".into()),
    };
    let mut bytes = Vec::new();
    let indent = indent.map(|width| " ".repeat(width));
    let python = Python {
        item,
        key,
        ascii: ascii == Some(true),
        pretty: indent.as_ref().map(|indent| PrettyFormatter::with_indent(indent.as_bytes())),
    };
    json.serialize(&mut Serializer::with_formatter(&mut bytes, python)).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes JSON as Python's `json.dumps` does: a blank after each separator.
struct Python<'a> {
    item: String,
    key: String,
    ascii: bool,
    /// Writes the line breaks, if there are to be any.
    pretty: Option<PrettyFormatter<'a>>,
}

impl Python<'_> {
    /// Writes the separator before an item; the line break after it is the pretty formatter's.
    fn separate<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        Ok(())
    }
}

impl Formatter for Python<'_> {
    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_array(writer),
            None => writer.write_all(b"["),
        }
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.end_array(writer),
            None => writer.write_all(b"]"),
        }
    }

    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)?;
        // As if it were the first, because the separator is already there.
        self.pretty.as_mut().map_or(Ok(()), |pretty| pretty.begin_array_value(writer, true))
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.as_mut().map_or(Ok(()), |pretty| pretty.end_array_value(writer))
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_object(writer),
            None => writer.write_all(b"{"),
        }
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.end_object(writer),
            None => writer.write_all(b"}"),
        }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)?;
        self.pretty.as_mut().map_or(Ok(()), |pretty| pretty.begin_object_key(writer, true))
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.as_mut().map_or(Ok(()), |pretty| pretty.end_object_value(writer))
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// Replaces the tags `generation` and `endgeneration`, which this Jinja does not know, by `with` and `endwith`, which
/// have the same scope and write nothing either. Comments and raw blocks stay as they are.
pub(super) fn without_generation(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
    let (mut out, mut rest, mut raw) = (String::with_capacity(source.len()), source, false);
    while let Some(at) = rest.find("{%").into_iter().chain(rest.find("{#").filter(|_| !raw)).min() {
        let close = if rest[at..].starts_with("{#") { "#}" } else { "%}" };
        let Some(length) = rest[at..].find(close).map(|end| end + close.len()) else { break };
        let (before, tag) = (&rest[..at], &rest[at..at + length]);
        out.push_str(before);
        let inner = tag[2..length - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let word = if raw && inner != "endraw" { "" } else { inner };
        match word {
            "raw" => raw = true,
            "endraw" => raw = false,
            _ => {}
        }
        match (close, word) {
            ("%}", "generation") => out.push_str(&tag.replacen("generation", "with", 1)),
            ("%}", "endgeneration") => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use minijinja::{context, value::Serde};
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let value = Value::from(Serde(json!({ "b": [1, 2.5, true], "a": { "ü<&>'": null }, "c": [], "d": {} })));
        environment()?.render_str(&without_generation(source), context! { value => value, x => "X" })
    }

    /// The expected texts are what Jinja2 3.1.6 with the environment of transformers 5.24 renders.
    #[test]
    fn json_is_written_as_python_writes_it() {
        for (source, text) in [
            ("{{ value | tojson }}", r#"{"b": [1, 2.5, true], "a": {"ü<&>'": null}, "c": [], "d": {}}"#),
            ("{{ value.a | tojson(ensure_ascii=true) }}", r#"{"\u00fc<&>'": null}"#),
            (
                "{{ value | tojson(sort_keys=true, separators=[',', ':']) }}",
                r#"{"a":{"ü<&>'":null},"b":[1,2.5,true],"c":[],"d":{}}"#,
            ),
            ("{{ value.b | tojson(indent=2) }}", "[\n  1,\n  2.5,\n  true\n]"),
            (
                "{{ value | tojson(indent=4) }}",
                "{\n    \"b\": [\n        1,\n        2.5,\n        true\n    ],\n    \"a\": {\n        \"ü<&>'\": null\n    },\n    \"c\": [],\n    \"d\": {}\n}",
            ),
            ("{{ '😀\"\\n' | tojson(ensure_ascii=true) }}", r#""\ud83d\ude00\"\n""#),
        ] {
            assert_eq!(render(source).unwrap(), text, "{source}");
        }
    }

    #[test]
    fn a_generation_block_changes_nothing_but_the_blanks_that_its_tags_strip() {
        for (source, text) in [
            ("a {% generation %}{{ x }}{% endgeneration %} b", "a X b"),
            ("a {%- generation -%} {{ x }} {%- endgeneration -%} b", "aXb"),
            ("a\n  {%generation%}\n{{ x }}\n{%+ endgeneration +%}\nb", "a\nX\n\nb"),
            (
                "{% for i in [1, 2] %}{% generation %}{% set y = loop.last %}{{ y }}{% endgeneration %}{{ y }}{% endfor %}",
                "FalseTrue",
            ),
            ("{# {% generation %} #}{% raw %}{% generation %}{% endraw %}", "{% generation %}"),
            ("{{ 'generation' }}{% if generation is defined %}!{% endif %}", "generation"),
        ] {
            assert_eq!(render(source).unwrap(), text, "{source}");
        }
        assert!(render("{% generation %}").is_err());
    }

    #[test]
    fn templates_for_python_render_as_there() {
        for (source, text) in [
            ("{{ nothing }}|{{ nothing|length }}|{{ nothing|trim }}", "|0|"),
            ("{% if nothing %}!{% endif %}{% for i in nothing %}!{% endfor %}{{ (nothing or [])|length }}", "0"),
            ("{{ 'x' ~ nothing }}|{{ nothing|default('d') }}|{{ value.nothing }}", "x|d|"),
            ("{% if nothing == 'x' or nothing in ['a'] or 'x' in nothing %}!{% endif %}", ""),
            ("{{ none }}|{{ true }}|{{ value.b[2] }}|{{ 1.0 }}|{{ value.a is none }}", "None|True|True|1.0|False"),
            ("{{ 'abc'[::-1] }}|{{ value.b[::-1][0] }}|{{ value.b[-1] }}", "cba|True|True"),
            (
                "{{ ' a b '.strip().split(' ')[1] }}|{{ 'abc'.startswith('a') }}|{{ 'a\nb'.splitlines()|length }}",
                "b|True|2",
            ),
            ("{{ 'a</think>b'.split('</think>')[-1].lstrip('\n') }}|{{ 'hi'.rstrip('i') }}", "b|h"),
            ("{{ x is string }}|{{ x is iterable }}|{{ x is sequence }}|{{ value is mapping }}", "True|True|True|True"),
            ("{{ value.get('no', 'none') }}|{% for key, v in value.items() %}{{ key }}{% endfor %}", "none|bacd"),
            (
                "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
                "4",
            ),
            ("{%- for i in [1, 2] -%}\n  {{- i -}}\n{%- endfor -%}\nend\n", "12end"),
            ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}|{{ '%d-%s'|format(1, 'x') }}", "<a>|1-x"),
            ("{{ dict(a=1)|tojson }}|{{ [{'r': 'u'}]|selectattr('r', 'equalto', 'u')|list|length }}", r#"{"a": 1}|1"#),
            ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
        ] {
            assert_eq!(render(source).map_err(|error| error.to_string()), Ok(text.to_owned()), "{source}");
        }
        for source in ["{{ nothing.part }}", "{{ nothing['part'] }}", "{{ nothing + 'x' }}"] {
            assert!(render(source).is_err(), "{source}");
        }
        assert!(render("{{ raise_exception('no') }}").unwrap_err().to_string().contains("no"));
    }

    #[test]
    fn the_date_is_today() {
        let today = || jiff::Zoned::now().date();
        // Twice, in case midnight passes between.
        let is_today = || today().to_string() == render("{{ strftime_now('%Y-%m-%d') }}").unwrap();
        assert!(is_today() || is_today());
        assert!(render("{{ strftime_now('%') }}").is_err());
    }
}
