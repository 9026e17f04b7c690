-- What a script finds around itself: the language's libraries, guarded, and the functions of the host.
--
-- The host (Rust) hands in `host`, a table of its functions, and takes back what it calls. No script ever
-- holds a library's own table: it holds a guard, an empty table that shows the real one and refuses changes.
-- An error of the host is a userdata, which `unwrap` turns into what scripts know: a text, or a table.
local host = ...
local error, getmetatable, ipairs, load_text = error, getmetatable, ipairs, loadstring
local newproxy, next, pairs, pcall, rawset, rawget = newproxy, next, pairs, pcall, rawset, rawget
local select, setmetatable, tostring, type, xpcall, setfenv = select, setmetatable, tostring, type, xpcall, setfenv
local byte, sub, concat, count_memory, collect = string.byte, string.sub, table.concat, gcinfo, collectgarbage
local insert, remove, sort = table.insert, table.remove, table.sort

local READONLY = "Attempt to modify a readonly table"
-- Most elements that are moved or put in order at once: nothing interrupts a function of the language's own.
local AT_ONCE_MAX = 10000

local shown, guards = {}, {}

local function refuse()
  error(READONLY, 2)
end

local function guard(real)
  local g = setmetatable({}, {__index = real, __newindex = refuse})
  shown[g], guards[real] = real, g
  return g
end

local nothing = {}
guard(nothing)

-- What is wrong with an argument, as the language's own functions say it.
local function bad(at, name, wanted, ...)
  local got = select("#", ...) == 0 and "no value" or type((...))
  error("bad argument #" .. at .. " to '" .. name .. "' (" .. wanted .. " expected, got " .. got .. ")", 3)
end

local base = {
  _VERSION = _VERSION, assert = assert, error = error, ipairs = ipairs, rawequal = rawequal,
  select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack,
  gcinfo = count_memory,
}

function base.next(t, k)
  if type(t) ~= "table" then bad(1, "next", "table", t) end
  return next(shown[t] or t, k)
end

function base.pairs(...)
  local t = ...
  if type(t) ~= "table" then bad(1, "pairs", "table", ...) end
  return next, shown[t] or t, nil
end

function base.rawget(...)
  local t, k = ...
  if type(t) ~= "table" then bad(1, "rawget", "table", ...) end
  return rawget(shown[t] or t, k)
end

function base.rawset(...)
  local t, k, v = ...
  if type(t) ~= "table" then bad(1, "rawset", "table", ...) end
  if shown[t] then error(READONLY, 0) end
  if k == nil then error("table index is nil", 2) end
  if k ~= k then error("table index is NaN", 2) end
  return rawset(t, k, v)
end

function base.getmetatable(...)
  if select("#", ...) == 0 then error("bad argument #1 to 'getmetatable' (value expected)", 2) end
  local x = ...
  if x == base._G then return guards[nothing] end
  if shown[x] or type(x) == "userdata" then return nil end
  local meta = getmetatable(x)
  return guards[meta] or meta
end

function base.setmetatable(...)
  local t, meta = ...
  if type(t) ~= "table" then bad(1, "setmetatable", "table", ...) end
  if shown[t] then error(READONLY, 0) end
  if meta ~= nil and type(meta) ~= "table" or select("#", ...) < 2 then
    error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
  end
  local old = getmetatable(t)
  if type(old) == "table" and rawget(old, "__metatable") ~= nil then
    error("cannot change a protected metatable", 2)
  end
  return setmetatable(t, meta)
end

-- An error table of the host reads as its text to those who caught it, as scripts have always seen it.
local unwrap = host.unwrap
local settle
function settle(ok, ...)
  if ok then return ok, ... end
  local e = ...
  if type(e) == "table" then
    local text = e.err
    if type(text) == "string" or type(text) == "number" then return ok, text end
  elseif type(e) == "userdata" then
    return settle(ok, unwrap(e))
  end
  return ok, e
end

function base.pcall(...)
  if select("#", ...) == 0 then error("bad argument #1 to 'pcall' (value expected)", 2) end
  return settle(pcall(...))
end

-- The handler is called behind the failure, not within it: there it would run inside the host's hook, which nothing can
-- interrupt.
local function handled(handler, ok, ...)
  if ok then return ok, ... end
  local e = ...
  if type(e) == "userdata" then e = unwrap(e) end
  local fine, told = pcall(handler, e)
  return false, fine and told or not fine and "error in error handling" or told
end

function base.xpcall(...)
  local f, handler = ...
  if select("#", ...) < 2 then error("bad argument #2 to 'xpcall' (value expected)", 2) end
  return handled(handler, pcall(f))
end

function base.collectgarbage(option, ...)
  -- The collector is shared by all scripts: it can be asked and urged, not stopped.
  if option == nil or option == "collect" or option == "count" or option == "step" then
    return collect(option, ...)
  end
  return 0
end

-- Loading. Compiled code is never taken: crafted bytecode breaks the interpreter. A blank ahead of it makes
-- it text, which it is not.
local function load_in(text, name)
  if byte(text, 1) == 27 then text = " " .. text end
  local f, e = load_text(text, name)
  if not f then return nil, e end
  return setfenv(f, guards[base])
end

function base.loadstring(...)
  local text, name = ...
  if type(text) == "number" then text = tostring(text) end
  if type(text) ~= "string" then bad(1, "loadstring", "string", ...) end
  return load_in(text, name or text)
end

function base.load(...)
  local reader, name = ...
  if type(reader) ~= "function" then bad(1, "load", "function", ...) end
  local pieces, bytes = {}, 0
  while true do
    local piece = reader()
    if piece == nil or piece == "" then break end
    if type(piece) ~= "string" then return nil, "reader function must return a string" end
    pieces[#pieces + 1] = piece
  end
  return load_in(concat(pieces), name or "=(load)")
end

-- Libraries of the language.
local function copy(from, without)
  local to = {}
  for k, v in pairs(from) do
    if not (without and without[k]) then to[k] = v end
  end
  return to
end

-- The host's functions of text count what they do.
local text = copy(string)
text.find, text.match, text.rep = host.find, host.match, host.rep
local scan, substitute = host.scan, host.substitute
local text_and_pattern, gsub_terms = host.text_and_pattern, host.gsub_terms

function text.gmatch(...)
  local s, pattern = text_and_pattern(...)
  local at = 0
  local function behind(from, to, ...)
    if from then at = to > from and to or to + 1 end
    return ...
  end
  return function() return behind(scan(s, pattern, at)) end
end
text.gfind = text.gmatch

-- What stands for a match: where it begins and ends, and what the script's function or table has for it.
local function replacement(with, is_function, from, to, ...)
  if not from then return end
  if is_function then return from, to, (with(...)) end
  return from, to, with[(...)]
end

function text.gsub(...)
  local _, _, with = ...
  local kind = type(with)
  if kind ~= "function" and kind ~= "table" then
    local result, count = substitute(...)
    return result, count
  end
  local s, pattern, most, is_anchored = gsub_terms(...)
  local is_function = kind == "function"
  local pieces, n, at, count = {}, 0, 0, 0
  while count < most do
    local from, to, value =
      replacement(with, is_function, scan(s, pattern, at, is_anchored, not is_function))
    if not from then break end
    count = count + 1
    local got = type(value)
    if not value then
      value = sub(s, from + 1, to)
    elseif got ~= "string" and got ~= "number" then
      error("invalid replacement value (a " .. got .. ")", 2)
    end
    pieces[n + 1], pieces[n + 2] = sub(s, at + 1, from), value
    n, at = n + 2, to
    if from == to then
      if from == #s then break end
      n, at = n + 1, from + 1
      pieces[n] = sub(s, at, at)
    end
    if is_anchored then break end
  end
  pieces[n + 1] = sub(s, at + 1)
  return concat(pieces), count
end

local numbers = copy(math)
numbers.random, numbers.randomseed = host.random, host.randomseed

-- A length may be more than there is (`#` looks for any border): what walks up to it does so in steps that count. (Each
-- of these replaces the frame that calls it last, as functions in Lua do: an error then tells no place.)
local tables = copy(table)

function tables.insert(...)
  local n, t, at, value = select("#", ...), ...
  if type(t) ~= "table" then bad(1, "insert", "table", ...) end
  if n == 2 then return insert(t, at) end
  if n ~= 3 then error("wrong number of arguments to 'insert'", 2) end
  local last, from = #t + 1, tonumber(at)
  if not from then bad(2, "insert", "number", at) end
  if last - from <= AT_ONCE_MAX then return insert(t, from, value) end
  from = from - from % 1
  for i = last, from + 1, -1 do rawset(t, i, rawget(t, i - 1)) end
  rawset(t, from, value)
end

function tables.remove(...)
  local t, at = ...
  if type(t) ~= "table" then bad(1, "remove", "table", ...) end
  local last = #t
  local from = at == nil and last or tonumber(at)
  if not from then bad(2, "remove", "number", at) end
  if from < 1 or last - from <= AT_ONCE_MAX then return remove(t, from) end
  from = from - from % 1
  local value = rawget(t, from)
  for i = from, last - 1 do rawset(t, i, rawget(t, i + 1)) end
  rawset(t, last, nil)
  return value
end

local function is_less(a, b) return a < b end

function tables.sort(...)
  local t, less = ...
  if type(t) ~= "table" then bad(1, "sort", "table", ...) end
  if less ~= nil and type(less) ~= "function" then bad(2, "sort", "function", less) end
  if less then
    -- What the host or the language has made is not interrupted; this is.
    return sort(t, function(a, b) return less(a, b) end)
  end
  if #t > AT_ONCE_MAX then return sort(t, is_less) end
  return sort(t)
end

function tables.foreach(...)
  local t, f = ...
  if type(t) ~= "table" then bad(1, "foreach", "table", ...) end
  if type(f) ~= "function" then bad(2, "foreach", "function", select(2, ...)) end
  for k, v in next, t do
    local result = f(k, v)
    if result ~= nil then return result end
  end
end

function tables.foreachi(...)
  local t, f = ...
  if type(t) ~= "table" then bad(1, "foreachi", "table", ...) end
  if type(f) ~= "function" then bad(2, "foreachi", "function", select(2, ...)) end
  for i = 1, #t do
    local result = f(i, rawget(t, i))
    if result ~= nil then return result end
  end
end

base.string, base.math, base.table = guard(text), guard(numbers), guard(tables)

local routines = copy(coroutine)
local resume = coroutine.resume
local function resumed(ok, ...)
  local e = ...
  if not ok and type(e) == "userdata" then return ok, unwrap(e) end
  return ok, ...
end
function routines.resume(...) return resumed(resume(...)) end
base.coroutine = guard(routines)
base.os = guard({clock = host.clock})

-- Methods of strings reach the same functions, and never their table.
local strings = getmetatable("")
strings.__index = text
shown[guard(strings)] = {__index = base.string}
getmetatable(guards[strings]).__index = {__index = base.string}

base.bit, base.cjson = guard(host.bit), guard(host.cjson)
base.cmsgpack, base.struct = guard(host.cmsgpack), guard(host.struct)

-- The server.
local new_error = host.error_table
local server = copy(host.constants)
server.call, server.pcall, server.log, server.sha1hex = host.call, host.pcall, host.log, host.sha1hex
server.setresp, server.set_repl, server.acl_check_cmd = host.setresp, host.set_repl, host.acl_check_cmd

function server.error_reply(...)
  local message = ...
  if select("#", ...) ~= 1 or type(message) ~= "string" then
    return new_error("wrong number or type of arguments")
  end
  if byte(message, 1) ~= 45 then message = "-" .. message end
  return new_error(message)
end

function server.status_reply(...)
  local message = ...
  if select("#", ...) ~= 1 or type(message) ~= "string" then
    return new_error("wrong number or type of arguments")
  end
  return {ok = message}
end

function server.replicate_commands() return true end
function server.breakpoint() return false end
function server.debug() end

base.redis = guard(server)
base.server = base.redis

base._G = guard(base)
setmetatable(base, {__index = function(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end})

local function run(f, ...)
  local keys, argv = ...
  if keys then
    -- A function of a library gets them as arguments; a script finds them as globals.
    return xpcall(function() return f(keys, argv) end, host.trace)
  end
  return xpcall(f, host.trace)
end

-- While a library is loaded there is nothing but what a library may do; its functions see the whole.
local missing = getmetatable(base)
local loading_server = setmetatable(copy(host.constants), missing)
loading_server.register_function, loading_server.log = host.register_function, server.log
local loading = setmetatable({redis = guard(loading_server)}, missing)
loading.server = loading.redis
local environment = getmetatable(guards[base])

local function load_library(f)
  environment.__index = loading
  local ok, e = xpcall(f, host.trace)
  environment.__index = base
  return ok, e
end

-- Dies with each turn of the collector and comes back, to tell the host of it.
local sentry, collected = newproxy(true), host.collected
local sentries = getmetatable(sentry)
function sentries.__gc()
  newproxy(sentry)
  collected()
end
newproxy(sentry)

local function quiet()
  sentries.__gc = nil
end

-- Nothing may be left in a guard: `table.insert` and its like write without asking.
local function tidy()
  for g in next, shown do
    if next(g) ~= nil then
      for k in next, g do g[k] = nil end
    end
  end
end

return {run = run, environment = guards[base], globals = base, load_library = load_library, tidy = tidy, quiet = quiet}
