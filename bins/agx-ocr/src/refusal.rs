//! What is said about arguments that cannot be parsed: never a prompt, wherever it was put.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// The longest argument that is repeated.
const LONGEST: usize = 40;

/// What is wrong with the arguments, for people.
pub fn message(error: &Error) -> String {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (arg, value) = (of(ContextKind::InvalidArg), of(ContextKind::InvalidValue));
    let unknown = error.kind() == ErrorKind::UnknownArgument;
    if unknown && !arg.starts_with('-') {
        return "unexpected argument behind the prompt: put a prompt of several words in quotes, \
                and give files with --input"
            .into();
    }
    if unknown && !is_plain(arg) {
        return "unexpected argument: put a prompt that begins with a dash behind --".into();
    }
    if !is_plain(value) {
        let valid = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(names)) => format!(": it is one of {}", names.join(", ")),
            _ => String::new(),
        };
        return format!("invalid value for '{arg}'{valid}");
    }
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    message.trim_end().to_owned()
}

/// Whether it may be repeated: a flag or a word, as no prompt is.
fn is_plain(text: &str) -> bool {
    text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    fn message(args: &[&str]) -> String {
        let args = ["agx-ocr"].iter().chain(args);
        super::message(&Args::try_parse_from(args).unwrap_err())
    }

    #[test]
    fn what_may_be_a_prompt_is_not_repeated() {
        let long = format!("secret{}", "t".repeat(LONGEST));
        for args in [
            &["a", "secret"][..],
            &["a", "the secret"],
            &["--the secret"],
            &["--prompt", "--the secret"],
            &["--prompt", "a", "the secret"],
            &["--prompt", "a", "--prompt", "the secret"],
            &["--task", "the secret"],
            &["--task", "secret：名前"],
            &["--task", &long],
            &["--device", "the secret"],
            &["--pages", "the \"secret\""],
            &["--max-tokens", "the secret"],
            &["--pretty=the secret"],
            &["--find", "the secret", "--top-k", "1"],
        ] {
            let message = message(args);
            assert!(!message.contains("secret"), "{args:?}: {message}");
            assert!(message.len() > 20, "{args:?}: {message}");
        }
    }

    #[test]
    fn what_is_none_is() {
        assert!(message(&["--nonsense=the secret"]).contains("'--nonsense'"));
        assert!(message(&["--mode", "huge"]).contains("'huge'"));
        let wrong = message(&["--task", "read it"]);
        assert!(
            wrong.contains("'--task <TASK>': it is one of text, markdown"),
            "{wrong}"
        );
    }
}
