//! What a client calls the conversation, and the number that stands for it here.

use super::Conversation;
use crate::base::CallerSlot;
use aws_lc_rs::digest::{Context, SHA256};
use memchr::memmem;

/// A name of more bytes is none: Claude Code's are UUIDs.
const NAME_BYTES_MAX: usize = 256;

/// The conversation that a request of `caller` belongs to. The first that says something counts: the header
/// `x-claude-code-session-id` (subagents have their parent's), then the session in the body's `metadata.user_id`. Both
/// name the same number. A `user_id` without a session names a person, not a conversation, and is passed over.
///
/// The number is made by SHA-256 and without a secret: with the same configuration it is the same after a restart and
/// on another machine, and so is what is chosen by it, which keeps caches. It cannot be made to collide, and no name
/// can be read from it that was not guessed first.
pub fn conversation(caller: CallerSlot, header: Option<&[u8]>, user_id: Option<&[u8]>) -> Option<Conversation> {
    let whole = header.map(<[u8]>::trim_ascii).filter(|name| is_name(name));
    Some(Conversation::of(caller, whole.or_else(|| session(user_id?))?))
}

impl Conversation {
    /// The number of the conversation that `caller` calls `name`.
    pub fn of(caller: CallerSlot, name: &[u8]) -> Conversation {
        let mut sum = Context::new(&SHA256);
        sum.update(&caller.0.to_le_bytes());
        sum.update(name);
        let mut number = [0; 8];
        for (to, from) in number.iter_mut().zip(sum.finish().as_ref()) {
            *to = *from;
        }
        Conversation(u64::from_le_bytes(number))
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}

/// The session in Claude Code's `metadata.user_id`: since 2.1 a JSON text with `session_id` (clients.md 1.1), before
/// that `user_<hash>_account_<uuid>_session_<uuid>`.
fn session(user_id: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"\"session_id\"";
    const MARK: &[u8] = b"_session_";
    let text = user_id.trim_ascii();
    let name = if text.starts_with(b"{") {
        let value = text.get(memmem::find(text, KEY)? + KEY.len()..)?.trim_ascii_start();
        let value = value.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        value.get(..memchr::memchr(b'"', value)?)?
    } else {
        text.get(memmem::rfind(text, MARK)? + MARK.len()..)?
    };
    is_name(name).then_some(name)
}
