//! Tasks, their prompts and the prompts' ids.

mod common;

use agx_ocr_text::{Error, MarkupStyle, Task, Tokenizer, prompt_ids};
use common::{ids, json, mini, shared};

#[test]
fn stock_prompts() {
    let find = Task::Locate("TOTAL EUR".into());
    let cases = [
        (Task::Text, "text", "<image>\nFree OCR."),
        (
            Task::Markdown,
            "markdown",
            "<image>\n<|grounding|>Convert the document to markdown.",
        ),
        (Task::Ocr, "ocr", "<image>\n<|grounding|>OCR this image."),
        (Task::Figure, "figure", "<image>\nParse the figure."),
        (
            Task::Describe,
            "describe",
            "<image>\nDescribe this image in detail.",
        ),
        (
            find,
            "locate",
            "<image>\nLocate <|ref|>TOTAL EUR<|/ref|> in the image.",
        ),
        (
            Task::Prompt("先天下之忧而忧".into()),
            "prompt",
            "先天下之忧而忧",
        ),
    ];
    for (task, name, prompt) in cases {
        assert_eq!(task.name(), name);
        assert_eq!(task.prompt().unwrap(), prompt);
    }
}

#[test]
fn markup_styles() {
    assert_eq!(Task::Markdown.markup_style(), Some(MarkupStyle::Layout));
    assert_eq!(Task::Ocr.markup_style(), Some(MarkupStyle::Lines));
    assert_eq!(
        Task::Locate("x".into()).markup_style(),
        Some(MarkupStyle::Lines)
    );
    assert_eq!(Task::Prompt("x".into()).markup_style(), None);
}

#[test]
fn texts_that_cannot_be_located() {
    let prompt = |find: &str| Task::Locate(find.to_owned()).prompt();
    assert!(matches!(prompt(" \n"), Err(Error::EmptyLocate)));
    for (find, token) in [
        ("a<|/ref|>b", "<|"),
        ("<｜end▁of▁sentence｜>", "<｜"),
        ("x<image>", "<image>"),
    ] {
        let error = prompt(find).unwrap_err();
        assert!(matches!(error, Error::SpecialInLocate { found } if found == token));
        assert!(error.to_string().contains(token), "{error}");
    }
    assert_eq!(
        prompt(" 3 < 4 | 5 ").unwrap(),
        "<image>\nLocate <|ref|>3 < 4 | 5<|/ref|> in the image."
    );
}

#[test]
fn the_image_goes_where_the_prompt_says() {
    let mini = mini();
    let (bos, image) = (mini.special().bos, mini.special().image);
    let first = prompt_ids(&mini, "<image>\nFree OCR. ", 3).unwrap();
    let mut expected = vec![bos, image, image, image];
    expected.extend(mini.encode("\nFree OCR.").unwrap());
    assert_eq!(first.ids, expected, "one BOS, white space trimmed, no EOS");
    assert_eq!(first.image, 1..4);

    assert_eq!(
        prompt_ids(&mini, "Free OCR.", 3).unwrap(),
        first,
        "in front by default"
    );

    let inside = prompt_ids(&mini, "ab <image>c", 2).unwrap();
    assert_eq!(inside.image, 4..6);
    assert_eq!(
        &inside.ids[..4],
        [[bos].as_slice(), &mini.encode("ab ").unwrap()].concat()
    );
    assert_eq!(inside.ids[6..], mini.encode("c").unwrap());
    assert!(inside.ids[inside.image].iter().all(|&id| id == image));

    assert_eq!(prompt_ids(&mini, "<image>", 5).unwrap().ids.len(), 6);
}

#[test]
fn prompts_that_cannot_be_used() {
    let mini = mini();
    let error = prompt_ids(&mini, "<image>a<image>b<image>", 3).unwrap_err();
    assert!(
        matches!(error, Error::TooManyImages { count: 3 }),
        "{error}"
    );
    assert!(error.to_string().contains("3 <image> places"), "{error}");
    assert!(matches!(prompt_ids(&mini, " ", 3), Err(Error::EmptyPrompt)));
    assert!(matches!(
        Task::Prompt("\t".into()).prompt(),
        Err(Error::EmptyPrompt)
    ));
}

#[test]
fn prompt_ids_agree_with_the_reference() {
    let test = "prompt_ids_agree_with_the_reference";
    let Some(model) = shared(test, "reference/tokenizer.json") else {
        return;
    };
    let Some(vectors) = shared(test, "reference/tokenizer_vectors.json") else {
        return;
    };
    let tokenizer = Tokenizer::from_file(&model).unwrap();
    let vectors = json(&vectors);
    let tasks = [
        Task::Text,
        Task::Markdown,
        Task::Ocr,
        Task::Figure,
        Task::Describe,
        Task::Locate("TOTAL EUR".into()),
        Task::Prompt("先天下之忧而忧".into()),
    ];
    for task in tasks {
        let prompt = task.prompt().unwrap();
        let text = format!("\n{}", prompt.trim_start_matches("<image>\n"));
        let case = vectors
            .as_array()
            .unwrap()
            .iter()
            .find(|case| case["text"] == text);
        let expected = ids(&case.unwrap_or_else(|| panic!("no vector for {text:?}"))["ids"]);
        let actual = prompt_ids(&tokenizer, &prompt, 273).unwrap();
        assert_eq!(actual.ids[0], 0);
        assert_eq!(actual.ids[actual.image.clone()], [128_815; 273]);
        assert_eq!(actual.ids[actual.image.end..], expected);
    }
}
