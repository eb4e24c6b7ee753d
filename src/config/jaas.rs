//! The line of `sasl.jaas.config`, as `org.apache.kafka.common.security.JaasConfig` reads it:
//!
//! ```text
//! org.example.LoginModule required name="value" other='value' third=value; // a comment
//! ```
//!
//! Java's `StreamTokenizer` reads it: a value is a word, or stands in single or double quotes, in
//! which a backslash escapes (`\"`, `\\`, `\n`, `\101`).

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use secret::Secret;

/// The property that has the line.
pub(super) const JAAS_CONFIG: &str = "sasl.jaas.config";

/// A login module and its options. `Debug` shows their names only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JaasEntry {
    /// The class, such as `org.apache.kafka.common.security.plain.PlainLoginModule`.
    pub(super) login_module: String,
    options: BTreeMap<String, Secret>,
}

/// `LoginModuleControlFlag`: what it means is of no use with one entry.
const CONTROL_FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];

impl JaasEntry {
    /// Reads the one entry that a line has.
    ///
    /// # Errors
    /// What is wrong with it, in words that show nothing of its values.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens(text.chars().peekable());
        let Some(JaasToken::Word(login_module)) = tokens.next()? else {
            return Err("it begins with the class of a login module".to_owned());
        };
        match tokens.next()? {
            Some(JaasToken::Word(flag)) if is_control_flag(&flag) => {}
            _ => {
                return Err("behind the login module stands a flag, such as required".to_owned());
            }
        }
        let mut options = BTreeMap::new();
        loop {
            let name = match tokens.next()? {
                Some(JaasToken::Word(name)) => name,
                Some(JaasToken::Symbol(';')) => break,
                Some(JaasToken::Symbol(symbol)) => {
                    return Err(format!("{symbol:?} stands where an option or ; is due"));
                }
                None => return Err("it does not end with a semicolon".to_owned()),
            };
            match (tokens.next()?, tokens.next()?) {
                (Some(JaasToken::Symbol('=')), Some(JaasToken::Word(value))) => {
                    options.insert(name, Secret::new(value));
                }
                _ => return Err(format!("the option {name} has no value")),
            }
        }
        match tokens.next()? {
            None => Ok(Self {
                login_module,
                options,
            }),
            Some(_) => Err("it has more than one entry".to_owned()),
        }
    }

    /// Reads the setting; nothing is none.
    ///
    /// # Errors
    /// What would be accepted.
    pub(super) fn parse_setting(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let entry =
            Self::parse(text).map_err(|fault| format!("a line as Java's clients have it: {fault}"));
        entry.map(Some)
    }

    /// All options, with their values.
    pub(super) fn options(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.options
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// An option's value.
    pub(super) fn option(&self, name: &str) -> Option<&Secret> {
        self.options.get(name)
    }

    /// An option that must be there.
    ///
    /// # Errors
    /// That it is not.
    pub(super) fn required(&self, name: &str) -> Result<&Secret, String> {
        self.option(name)
            .ok_or_else(|| format!("the login module needs the option {name}"))
    }
}

fn is_control_flag(word: &str) -> bool {
    CONTROL_FLAGS
        .iter()
        .any(|flag| flag.eq_ignore_ascii_case(word))
}

#[derive(Debug, PartialEq, Eq)]
enum JaasToken {
    /// A word, or what stood in quotes.
    Word(String),
    Symbol(char),
}

struct Tokens<'a>(Peekable<Chars<'a>>);

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<JaasToken>, String> {
        loop {
            let Some(c) = self.0.next() else {
                return Ok(None);
            };
            return Ok(Some(match c {
                c if c <= ' ' => continue,
                '/' => {
                    self.skip_comment()?;
                    continue;
                }
                '"' | '\'' => JaasToken::Word(self.quoted(c)?),
                c if is_word(c) => JaasToken::Word(self.word(c)),
                symbol => JaasToken::Symbol(symbol),
            }));
        }
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(c) = self.0.next_if(|c| is_word(*c)) {
            word.push(c);
        }
        word
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.0.next() {
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.extend(self.escaped()),
                Some(c) if c != '\n' && c != '\r' => text.push(c),
                _ => return Err("a quote is not closed".to_owned()),
            }
        }
    }

    /// What a backslash and what follows it stand for.
    fn escaped(&mut self) -> Option<char> {
        Some(match self.0.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            digit @ '0'..='7' => {
                // Three digits at most, and two if they would be more than a byte.
                let digits = if digit <= '3' { 2 } else { 1 };
                let mut code = digit.to_digit(8)?;
                for _ in 0..digits {
                    let Some(next) = self.0.next_if(|c| c.is_digit(8)) else {
                        break;
                    };
                    code = code * 8 + next.to_digit(8)?;
                }
                char::from_u32(code)?
            }
            other => other,
        })
    }

    fn skip_comment(&mut self) -> Result<(), String> {
        match self.0.next() {
            Some('*') => loop {
                match self.0.next() {
                    Some('*') if self.0.next_if_eq(&'/').is_some() => return Ok(()),
                    Some(_) => {}
                    None => return Err("a comment is not closed".to_owned()),
                }
            },
            Some('\n' | '\r') | None => Ok(()),
            // Java takes a slash alone for a comment up to the end of the line, as it does two.
            Some(_) => {
                while self.0.next_if(|c| *c != '\n' && *c != '\r').is_some() {}
                Ok(())
            }
        }
    }
}

/// Java's default word characters, and those that Kafka adds.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '$' | '.') || c >= '\u{a0}'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<(String, String)> {
        let entry = JaasEntry::parse(text).expect(text);
        let options = entry.options.iter();
        options
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect()
    }

    #[test]
    fn options_are_words_or_stand_in_quotes_with_escapes() {
        let line = "org.apache.kafka.common.security.plain.PlainLoginModule required\n  \
                    username=\"al ice\" password='p\"\\\\a=;\\'s' third=word_1.2-3$ /* x */ ; // end";
        let entry = JaasEntry::parse(line).expect("an entry");
        assert!(entry.login_module.ends_with("PlainLoginModule"));
        let expected = [
            ("password", "p\"\\a=;'s"),
            ("third", "word_1.2-3$"),
            ("username", "al ice"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(options(line), expected);
        assert_eq!(options("M required a=\"\\101\\n\\7x\";")[0].1, "A\n\u{7}x");
        assert_eq!(options("M REQUIRED;"), []);
    }

    #[test]
    fn a_line_that_cannot_be_read_says_why_and_shows_no_value() {
        for (text, fault) in [
            ("", "it begins with the class of a login module"),
            (
                "M",
                "behind the login module stands a flag, such as required",
            ),
            (
                "M needed a=\"hunter2\";",
                "behind the login module stands a flag, such as required",
            ),
            (
                "M required a=\"hunter2\"",
                "it does not end with a semicolon",
            ),
            ("M required a=\"hunter2;", "a quote is not closed"),
            ("M required a \"hunter2\";", "the option a has no value"),
            ("M required a=;", "the option a has no value"),
            ("M required a=b; N required;", "it has more than one entry"),
            ("M required /* a=b;", "a comment is not closed"),
        ] {
            assert_eq!(JaasEntry::parse(text), Err(fault.to_owned()), "{text}");
        }
    }

    #[test]
    fn values_never_show() {
        let entry = JaasEntry::parse("M required password=\"hunter2\";").expect("an entry");
        assert!(!format!("{entry:?}").contains("hunter2"));
        assert!(entry.required("username").is_err());
        assert_eq!(entry.required("password"), Ok(&Secret::new("hunter2")));
    }
}
