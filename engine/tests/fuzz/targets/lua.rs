//! Scripts, and data for the libraries that they call.

use engine::busy::{self, LooksAfter};
use engine::persist::load;
use engine::resp::Reply;
use engine::server::Shared;

use super::alone::{Alone, check_replies};
use super::{Target, kinds, owned, shape};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "lua",
        seeds: scripts,
        words: &[
            b" return ",
            b"(",
            b")",
            b"{",
            b"}",
            b" end ",
            b"pcall",
            b"..",
            b"#",
            b"nil",
            b"redis.call",
            b"%f",
            b"%b()",
            b"_G",
            b"'",
            b"string.rep",
            b"function() ",
            b"coroutine.wrap",
            b"setmetatable",
        ],
        runs: 2_000,
        feed: script,
    },
    Target {
        name: "functions",
        seeds: libraries,
        words: &[
            b"#!lua name=",
            b"\n",
            b"redis.register_function",
            b"flags={'no-writes'}",
            b"function_name=",
            b"callback=",
        ],
        runs: 1_000,
        feed: library,
    },
    Target {
        name: "cjson",
        seeds: || {
            owned(&[
                b"[1, {\"a\": [true, null, -0.5e3]}]",
                b"{\"a\":{},\"b\":[],\"c\":\"\\u00e9\\ud83d\\ude00\\n\"}",
                b"[1e308, 123456789012345678901234567890, \"\"]",
                b"NaN",
                b"[[[[[[[[[[]]]]]]]]]]",
            ])
        },
        words: &[b"null", b"true", b"\\u", b"[", b"]", b"{\"", b"\":", b",", b"Infinity", b"0x1p3"],
        runs: 3_000,
        feed: |input| with(JSON, input),
    },
    Target {
        name: "cmsgpack",
        seeds: || {
            owned(&[
                b"\x93\x01\xa1a\x81\xa1x\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00",
                b"\xc0\xc2\xc3\xcc\xff\xcd\xff\xff\xce\xff\xff\xff\xff\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\xd0\x80\xd1\x80\x00\xd2\x80\x00\x00\x00\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xca\x3f\x80\x00\x00",
                b"\xdc\x00\x01\x01\xde\x00\x01\x01\x02\xd9\x01a\xda\x00\x01a\xc4\x01a",
            ])
        },
        words: &[
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\x7f\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\x91",
            b"\x81",
        ],
        runs: 3_000,
        feed: |input| with(MSGPACK, input),
    },
    Target {
        name: "struct",
        seeds: || {
            owned(&[
                b">I2hs\n\x00\x01\xff\xfeabcd\x00",
                b"<i4c2 !4 b B\n\x01\x02\x03\x04ab\x00\x00\x00\x00\x00",
                b"=d f l L x c0\n\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x80\x3f\x00\x00\x00\x00\x00\x00\x00\x00",
                b"Bc0\n\x03abc",
            ])
        },
        words: &[b"i8", b"I32", b"!16", b"c2147483647", b"c0", b"s", b">", b"\n"],
        runs: 3_000,
        feed: |input| with(STRUCT, input),
    },
    Target {
        name: "lua-patterns",
        seeds: || {
            owned(&[
                b"(%w+) (%w+)\nhello world",
                b"^%s*(.-)%s*$\n  a b  ",
                b"%b()%f[%w]%1\n(a(b)c) d",
                b"([^,]*),?()\na,b,,c",
                b"%5.2f %q %s %x %c\n1",
            ])
        },
        words: &[
            b"%b", b"%f[", b"(", b")", b"%1", b"[^", b"]", b"-", b"*", b"+", b"?", b"$", b"%d",
            b"%99.99f",
        ],
        runs: 3_000,
        feed: |input| with(PATTERNS, input),
    },
];

fn scripts() -> Vec<Vec<u8>> {
    owned(&[
        b"return redis.call('GET', KEYS[1])",
        b"local t = {} for i = 1, 100 do t[i] = i * 2 end return t",
        b"return {redis.pcall('HGETALL', 'h'), redis.status_reply('OK'), redis.error_reply('ERR x')}",
        b"return cjson.encode({a = {1, 2, {b = cjson.null}}})",
        b"return bit.bxor(bit.lshift(1, 31), 0xff)",
        b"return string.gsub('hello world', '(%w+)', string.upper)",
        b"return string.format('%5.2f %q %s %x', 1.234, 'a\\nb', 'c', 255)",
        b"return table.concat({1, 2, 3}, ',', 1, 3)",
        b"local ok, e = pcall(error, {code = 1}) return tostring(e)",
        b"return select('#', unpack({1, 2, 3}, 1, 3))",
        b"local co = coroutine.wrap(function() coroutine.yield(1) end) return co()",
        b"while true do end",
        b"return tostring(setmetatable({}, {__tostring = function() return 'x' end}))",
        b"return loadstring('return 1 + 1')()",
        b"#!lua flags=no-writes,allow-stale\nredis.setresp(3) return {map = {a = 1}, double = 1.5}",
        b"local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) return t",
        b"redis.log(redis.LOG_NOTICE, redis.sha1hex('a')) return redis.acl_check_cmd('get', 'k')",
    ])
}

fn libraries() -> Vec<Vec<u8>> {
    owned(&[
        b"#!lua name=a\nredis.register_function('f', function(keys, args) return args[1] end)",
        b"#!lua name=b\nredis.register_function{function_name='g', callback=function() return 1 end, \
          flags={'no-writes', 'allow-oom'}, description='d'}",
        b"#!lua name=c\nlocal t = {} for i = 1, 3 do redis.register_function('f' .. i, function() return t end) end",
    ])
}

/// What is read is written so that it reads back; and reads from anywhere within it end.
const JSON: &str = "local ok, value = pcall(cjson.decode, ARGV[1]) if not ok then return value end \
    local ok, text = pcall(cjson.encode, value) if not ok then return text end \
    local again = cjson.encode(cjson.decode(text)) assert(#again == #text, text) return text";
const MSGPACK: &str = "pcall(cmsgpack.unpack_one, ARGV[1], #ARGV[1] / 2) pcall(cmsgpack.unpack_limit, ARGV[1], 2, 0) \
    local values = {pcall(cmsgpack.unpack, ARGV[1])} if not values[1] then return values[2] end \
    local ok, bytes = pcall(cmsgpack.pack, unpack(values)) if not ok then return bytes end \
    cmsgpack.unpack(bytes) return #bytes";
const STRUCT: &str = "local at = string.find(ARGV[1], '\\n', 1, true) if not at then return 0 end \
    local form, data = string.sub(ARGV[1], 1, at - 1), string.sub(ARGV[1], at + 1) \
    local ok, size = pcall(struct.size, form) \
    pcall(struct.pack, form, 1, 'ab', -1, 2.5, 'c', 3) \
    local values = {pcall(struct.unpack, form, data)} if not values[1] then return values[2] end \
    local ok, bytes = pcall(struct.pack, form, unpack(values, 2)) return ok and #bytes or bytes";
const PATTERNS: &str = "local at = string.find(ARGV[1], '\\n', 1, true) if not at then return 0 end \
    local form, text = string.sub(ARGV[1], 1, at - 1), string.sub(ARGV[1], at + 1) \
    pcall(string.format, form, text, 1.5, 3, text, -1) pcall(string.gsub, text, form, '<%0%1>', 9) \
    pcall(string.match, text, form, -3) \
    pcall(function() for a, b in string.gmatch(text, form) do if #a > 9 then return a end end end) \
    local ok, from, to = pcall(string.find, text, form) return {tostring(from), to}";

/// Ends a script that has had so many slices of time, as an administrator would.
struct Ender<'s> {
    shared: &'s Shared,
    turns: u32,
}

const TURNS: u32 = 6;

impl LooksAfter for Ender<'_> {
    fn busy_turn(&mut self) -> bool {
        self.turns += 1;
        if self.turns >= TURNS {
            self.shared.scripts.kill(false);
            self.shared.scripts.kill(true);
        }
        true
    }
}

/// A client's request, and what is told of the reply.
fn ask(args: &[&[u8]], tell: fn(&[u8]) -> u64) -> u64 {
    thread_local! {
        static SERVER: Alone = Alone::new();
    }
    SERVER.with(|server| {
        let (mut session, mut reply) = (server.client(), Reply::new(Vec::new(), false));
        let mut ender = Ender { shared: &server.shared, turns: 0 };
        busy::with(&mut ender, || {
            load::execute(&mut server.executor(), &mut session, &mut reply, args);
        });
        check_replies(&reply.out);
        let found = tell(&reply.out);
        if args[0] == b"FUNCTION" {
            reply.out.clear();
            load::execute(
                &mut server.executor(),
                &mut session,
                &mut reply,
                &[b"FUNCTION", b"FLUSH"],
            );
        }
        server.end(session);
        server.tidy();
        found
    })
}

fn script(input: &[u8]) -> u64 {
    ask(&[b"EVAL_RO", input, b"1", b"key", b"arg"], kinds)
}

fn library(input: &[u8]) -> u64 {
    ask(&[b"FUNCTION", b"LOAD", b"REPLACE", input], kinds)
}

fn with(script: &str, input: &[u8]) -> u64 {
    // What went wrong is told as any other text: its words, without numbers.
    ask(&[b"EVAL_RO", script.as_bytes(), b"0", input], |reply| {
        let told = reply.iter().filter(|b| !b.is_ascii_digit()).take(48);
        shape(told.copied().collect::<Vec<u8>>())
    })
}
