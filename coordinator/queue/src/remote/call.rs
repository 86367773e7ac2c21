//! Scripts and their arguments.

use std::borrow::Cow;
use std::sync::LazyLock;

use redis::{Cmd, Value};

use crate::error::BackendError;

/// A Lua script of this crate. Its first line holds its flags.
pub(crate) struct Script {
    code: String,
    hash: String,
    is_write: bool,
}

impl Script {
    fn new(code: String) -> Self {
        let hash = redis::Script::new(&code).get_hash().to_owned();
        let is_write = !code.lines().next().is_some_and(|line| line.contains("no-writes"));
        Self { code, hash, is_write }
    }
}

macro_rules! scripts {
    ($($name:ident: $file:literal),* $(,)?) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file)).to_owned()));)*
    };
}

macro_rules! store_scripts {
    ($($name:ident: $flags:literal $file:literal),* $(,)?) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            let parts = [$flags, "\n", include_str!("lua/store.lua"), include_str!(concat!("lua/", $file))];
            Script::new(parts.concat())
        });)*
    };
}

scripts! {
    LEAD: "lead.lua",
    RESIGN: "resign.lua",
    LEADER: "leader.lua",
    POST: "post.lua",
    COMMIT: "commit.lua",
    CHECKPOINT: "checkpoint.lua",
    LOAD: "load.lua",
    FORGET: "forget.lua",
}

// What makes room, or ends what has begun, is allowed when memory is short.
store_scripts! {
    STORE_INLINE: "#!lua" "store_inline.lua",
    STORE_BEGIN: "#!lua" "store_begin.lua",
    STORE_END: "#!lua flags=allow-oom" "store_end.lua",
    STORE_ABORT: "#!lua flags=allow-oom" "store_abort.lua",
    STORE_HOLD: "#!lua" "store_hold.lua",
    STORE_TAKE: "#!lua" "store_take.lua",
    STORE_RELEASE: "#!lua flags=allow-oom" "store_release.lua",
    STORE_DAMAGE: "#!lua flags=allow-oom" "store_damage.lua",
    STORE_SWEEP: "#!lua flags=allow-oom" "store_sweep.lua",
    STORE_CLEAN: "#!lua flags=allow-oom" "store_clean.lua",
    STORE_UNKNOWN: "#!lua flags=no-writes" "store_unknown.lua",
}

/// One run of a script.
pub(crate) struct Call<'a> {
    script: &'a Script,
    keys: Vec<Cow<'a, str>>,
    args: Vec<Cow<'a, [u8]>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(script: &'a Script) -> Self {
        Self { script, keys: Vec::new(), args: Vec::new() }
    }

    pub(crate) fn key(mut self, key: impl Into<Cow<'a, str>>) -> Self {
        self.keys.push(key.into());
        self
    }

    pub(crate) fn arg(mut self, arg: impl Into<Cow<'a, [u8]>>) -> Self {
        self.push(arg);
        self
    }

    pub(crate) fn text(self, arg: &'a str) -> Self {
        self.arg(arg.as_bytes())
    }

    pub(crate) fn number(mut self, arg: u64) -> Self {
        self.push_number(arg);
        self
    }

    pub(crate) fn push(&mut self, arg: impl Into<Cow<'a, [u8]>>) {
        self.args.push(arg.into());
    }

    pub(crate) fn push_number(&mut self, arg: u64) {
        self.args.push(arg.to_string().into_bytes().into());
    }

    pub(super) fn is_write(&self) -> bool {
        self.script.is_write
    }

    pub(super) fn first_key(&self) -> &str {
        self.keys.first().map_or("", |key| key.as_ref())
    }

    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    pub(super) fn by_code(&self) -> Cmd {
        self.command("EVAL", &self.script.code)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        self.keys.iter().for_each(|key| {
            command.arg(key.as_ref());
        });
        self.args.iter().for_each(|arg| {
            command.arg(arg.as_ref());
        });
        command
    }
}

/// A script's answer: a code and what follows it.
pub(crate) struct Answer {
    code: String,
    rest: std::vec::IntoIter<Value>,
}

impl Answer {
    pub(crate) fn new(answer: Value) -> Result<Self, BackendError> {
        let mut rest = array(answer)?.into_iter();
        let code = text(rest.next())?;
        Ok(Self { code, rest })
    }

    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    pub(crate) fn text(&mut self) -> Result<String, BackendError> {
        text(self.rest.next())
    }

    pub(crate) fn number(&mut self) -> Result<u64, BackendError> {
        number(self.rest.next())
    }

    /// The texts that are left.
    pub(crate) fn texts(self) -> Result<Vec<String>, BackendError> {
        self.rest.map(|value| text(Some(value))).collect()
    }

    /// For a code that the caller does not expect.
    pub(crate) fn unexpected(&self) -> BackendError {
        BackendError::protocol(format!("a script answered {:?}", self.code))
    }
}

pub(crate) fn array(value: Value) -> Result<Vec<Value>, BackendError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(BackendError::protocol(format!("{} in the place of a list", kind(Some(&other))))),
    }
}

pub(crate) fn text(value: Option<Value>) -> Result<String, BackendError> {
    String::from_utf8(bytes(value)?).map_err(|_| BackendError::protocol("a text that is not UTF-8"))
}

pub(crate) fn bytes(value: Option<Value>) -> Result<Vec<u8>, BackendError> {
    match value {
        Some(Value::BulkString(bytes)) => Ok(bytes),
        Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
        other => Err(BackendError::protocol(format!("{} in the place of bytes", kind(other.as_ref())))),
    }
}

/// A number, whether as integer or as text; nil is 0.
pub(crate) fn number(value: Option<Value>) -> Result<u64, BackendError> {
    let parsed = match &value {
        Some(Value::Nil) => Some(0),
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    parsed.ok_or_else(|| BackendError::protocol(format!("{} in the place of a number", kind(value.as_ref()))))
}

/// What a value is, without its content.
fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None | Some(Value::Nil) => "nothing",
        Some(Value::Int(_)) => "a number",
        Some(Value::BulkString(_) | Value::SimpleString(_) | Value::Okay) => "a text",
        Some(Value::Array(_)) => "a list",
        Some(_) => "something else",
    }
}

/// Fields of every entry: the bytes, and the size of the stream up to it.
const FIELDS_MIN: usize = 2;

/// An entry of a stream: the number of its id, and its fields' values in the order in which they were written.
pub(crate) fn entry(value: Value) -> Result<(u64, Vec<Vec<u8>>), BackendError> {
    let mut parts = array(value)?.into_iter();
    let id = text(parts.next())?;
    let place = id.strip_prefix("0-").and_then(|place| place.parse().ok());
    let place = place.ok_or_else(|| BackendError::protocol(format!("a stream entry with id {id}")))?;
    let fields = array(parts.next().unwrap_or(Value::Nil))?.into_iter().skip(1).step_by(2);
    let fields = fields.map(|value| bytes(Some(value))).collect::<Result<Vec<_>, _>>()?;
    if fields.len() < FIELDS_MIN {
        return Err(BackendError::protocol(format!("stream entry {id} has {} fields", fields.len())));
    }
    Ok((place, fields))
}
