//! The files of the page, as they were when the binary was built.

/// Each file of `www` by its path, and its content.
macro_rules! page {
    ($($path:literal)*) => {
        &[$(($path, include_bytes!(concat!("../../www/", $path)))),*]
    };
}

pub(super) const PAGE: &[(&str, &[u8])] = page! {
    "index.html" "style.css" "lab.txt" "favicon.svg" "app.js" "bar.js" "channels.js" "chart.js"
    "check.js" "check_table.js" "check_watch.js" "dom.js" "early.js" "editor.js" "json.js" "lab.js"
    "language.js" "lessons.js" "log.js" "panels.js" "parser.js" "presets.js" "reader.js"
    "recording.js" "snippets.js" "tabs.js" "text.js" "text/check_en.js" "text/check_zh.js"
    "text/en.js" "text/zh.js" "tool.js" "wire.js" "words.js" "samples/index.html"
    "samples/openai-chat.sse" "samples/openai-response.sse" "samples/anthropic-message.sse"
    "samples/mcp.sse" "samples/hostile.sse"
};
