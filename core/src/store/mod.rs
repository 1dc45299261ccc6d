//! The ordered key-value store under everything, its committer and its watermark.
