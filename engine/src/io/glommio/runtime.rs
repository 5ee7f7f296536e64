//! The next commit's.
