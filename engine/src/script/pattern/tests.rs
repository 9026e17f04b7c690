use mlua::{Function, Lua, LuaOptions, StdLib};
use proptest::prelude::*;

use super::super::interpreter::Interpreter;
use super::{Budget, Fault, Matcher};

/// What is compared: all results of a call as one text.
const SHOW: &str = r##"
local string, table, pcall, select, tostring, type = string, table, pcall, select, tostring, type
local concat, gsub = table.concat, string.gsub
local function show(...)
  local all = {}
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    all[i] = type(value) .. ":" .. tostring(value)
  end
  return concat(all, "|")
end
local function replace(...)
  local all = {...}
  if all[1] == "b" then return nil elseif all[1] == "c" then return false elseif all[1] == "d" then return {} end
  for i = 1, #all do all[i] = tostring(all[i]) end
  return #all .. "<" .. concat(all, ",") .. ">"
end
local words = setmetatable({a = "A", b = false, [1] = 7, [2] = "two", ab = true}, {__index = function(_, k)
  if k == "c" then return "see" end
end})
return function(string, pcall, text, pattern, init, with)
  local all = {}
  local function add(f, ...) all[#all + 1] = show(pcall(f, ...)) end
  add(string.find, text, pattern, init)
  add(string.find, text, pattern, init, true)
  add(string.match, text, pattern, init)
  add(string.gsub, text, pattern, with)
  add(string.gsub, text, pattern, with, init)
  add(string.gsub, text, pattern, replace)
  add(string.gsub, text, pattern, words, 3)
  local found, turns = {}, 0
  add(function()
    for a, b in string.gmatch(text, pattern) do
      turns = turns + 1
      found[turns] = show(a, b)
    end
  end)
  return concat(all, "\n") .. "\n" .. concat(found, "\n")
end"##;

/// The language's own functions, ours, and who compares them.
struct Both {
    show: Function,
    theirs: (mlua::Table, Function),
    ours: (mlua::Table, Function),
    _interpreter: Interpreter,
}

fn both() -> Both {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
    let lua = Lua::new_with(libraries, LuaOptions::default()).unwrap();
    let globals = lua.globals();
    let theirs = (globals.get("string").unwrap(), globals.get("pcall").unwrap());
    let show = lua.load(SHOW).eval().unwrap();
    let interpreter = Interpreter::around(lua.clone(), 64 << 20).unwrap();
    let globals = lua.globals();
    let ours = (globals.get("string").unwrap(), globals.get("pcall").unwrap());
    Both { show, theirs, ours, _interpreter: interpreter }
}

impl Both {
    /// What each of them makes of it.
    fn run(&self, text: &[u8], pattern: &[u8], init: i64, with: &[u8]) -> [Vec<u8>; 2] {
        [&self.theirs, &self.ours].map(|(string, pcall)| {
            let lua = self._interpreter.lua();
            let words = [text, pattern, with].map(|w| lua.create_string(w).unwrap());
            let [text, pattern, with] = words;
            let args = (string, pcall, text, pattern, init, with);
            self.show.call::<mlua::LuaString>(args).unwrap().as_bytes().to_vec()
        })
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Pieces of patterns, whole and broken.
const PIECES: &[&str] = &[
    "a", "b", "c", "1", " ", "-", ".", "%a", "%d", "%w", "%s", "%p", "%z", "%A", "%W", "%x", "%u",
    "%%", "%.", "%-", "[abc]", "[^a]", "[a-c]", "[%a-]", "[]]", "[^]a]", "[%w_]", "[a-]", "[-a]",
    "[%]]", "[^%s]", "[", "]", "%b()", "%bab", "%b", "%baa", "%f[a]", "%f[%w]", "%f[^%z]", "%f",
    "%fa", "(", ")", "()", "(a)", "(.-)", "%1", "%2", "%0", "^", "$", "*", "+", "-", "?", "%",
    "\0", ".*", ".-", "a*", "%a+", "b?",
];
const WITHS: &[&str] = &["x", "", "%0", "%1", "<%1%2>", "%", "%%", "%a", "%9", "-%0-%1"];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"aaabbbcdA1 ()-_]%\0\n\xe9".to_vec());
    prop::collection::vec(byte, 0..16)
}

fn pattern() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(PIECES), 0..8)
        .prop_map(|all| all.concat().into_bytes())
}

fn with() -> impl Strategy<Value = &'static str> {
    prop::sample::select(WITHS)
}

#[test]
fn patterns_match_as_the_languages_own() {
    let both = both();
    let config = ProptestConfig { cases: 20_000, ..ProptestConfig::default() };
    proptest!(config, |(text in text(), pattern in pattern(), init in -20i64..20, with in with())| {
        let [theirs, ours] = both.run(&text, &pattern, init, with.as_bytes());
        prop_assert_eq!(shown(&ours), shown(&theirs), "{:?} in {:?}", shown(&pattern), shown(&text));
    });
}

#[test]
fn patterns_of_any_bytes_match_as_the_languages_own() {
    let both = both();
    let config = ProptestConfig { cases: 5_000, ..ProptestConfig::default() };
    let bytes = || prop::collection::vec(any::<u8>(), 0..6);
    proptest!(config, |(text in bytes(), pattern in bytes(), with in bytes())| {
        let [theirs, ours] = both.run(&text, &pattern, 1, &with);
        prop_assert_eq!(shown(&ours), shown(&theirs), "{:?} in {:?}", pattern, text);
    });
}

#[test]
fn every_byte_is_of_the_same_classes_as_in_the_language() {
    let both = both();
    let text: Vec<u8> = (0..=255).collect();
    for class in 0..=255u8 {
        for pattern in
            [vec![b'%', class], vec![b'[', b'%', class, b']'], vec![b'[', class, b'-', b'z', b']']]
        {
            let [theirs, ours] = both.run(&text, &pattern, 1, b"%0.");
            assert_eq!(shown(&ours), shown(&theirs), "{pattern:?}");
        }
    }
}

struct Steps(std::cell::Cell<usize>);

impl Budget for Steps {
    fn spend(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

#[test]
fn a_pattern_that_backtracks_for_ever_ends_with_its_budget() {
    let text = "a".repeat(100_000);
    let nested = ".-".repeat(30) + "b";
    let wide = format!("[{}]*b", "c".repeat(100_000) + "a");
    for pattern in [
        nested.as_str(),
        ".*.*.*b",
        "%b()",
        "(.*)%1%1b",
        "a-a-a-b",
        &wide,
        "%f[%A][^a]",
        "a?a?a?a*a*b",
    ] {
        let text = if pattern == "%b()" { text.replace('a', "(") } else { text.clone() };
        let steps = Steps(std::cell::Cell::new(1_000_000));
        let mut matcher = Matcher::new(text.as_bytes(), pattern.as_bytes(), &steps);
        let result = matcher.find(0, false);
        assert!(result == Err(Fault::Ended) || result == Ok(None), "{pattern}: {result:?}");
    }
}

#[test]
fn a_pattern_of_very_many_items_is_refused() {
    let text = "a".repeat(1 << 20);
    let steps = Steps(std::cell::Cell::new(usize::MAX));
    let pattern = "a?".repeat(1 << 20);
    let mut matcher = Matcher::new(text.as_bytes(), pattern.as_bytes(), &steps);
    assert_eq!(matcher.find(0, false), Err(Fault::Text("pattern too complex")));
}
